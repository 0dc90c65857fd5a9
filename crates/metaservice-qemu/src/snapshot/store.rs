//! The directory of snapshots.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use metaservice_private::{Directory, Location};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::draft::{SnapshotDraft, remove_abandoned};
use super::error::{SnapshotError, of_private};
use super::files::{describe, digest, files, read_manifest};
use super::key::SnapshotKey;
use super::usage::{self, InUse, StoredSnapshot};
use crate::machine::state::MAX_STATE;
use crate::spec::snapshot::SnapshotFiles;

/// The snapshots of a user.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    location: Location,
    path: PathBuf,
    limit: u64,
}

/// A snapshot from which machines can be
/// [restored](crate::MachineSpec::restore_from).
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    has_disk: bool,
    state: Vec<u8>,
    notes: Value,
}

/// The right to make snapshots, which one process has at a time.
#[derive(Debug)]
pub struct StoreLock(File);

impl SnapshotStore {
    /// The snapshots in `$XDG_CACHE_HOME/metaservice/warm`.
    ///
    /// # Errors
    /// If the user has no cache directory.
    pub fn of_user() -> Result<Self, SnapshotError> {
        let location = Location::Cache("warm");
        let path = location.path().ok_or(SnapshotError::NoCache)?;
        Ok(Self { location, path, limit: u64::MAX })
    }

    /// The snapshots in a directory, which is created when it is needed.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { location: Location::At(path.clone()), path, limit: u64::MAX }
    }

    /// Limits the bytes that all automatic snapshots take together. A new one removes others, the
    /// least recently used first. It stays, whatever its own size. Without this, there is no limit.
    #[must_use]
    pub const fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// The snapshots, the most recently used first. Blocks.
    #[must_use]
    pub fn list(&self) -> Vec<StoredSnapshot> {
        usage::list(&self.path)
    }

    /// Removes the automatic snapshots that are not in use, and with `all` also those of images.
    /// Returns what was removed. Blocks.
    pub fn prune(&self, all: bool) -> Vec<StoredSnapshot> {
        usage::prune(&self.path, all)
    }

    /// The snapshot with this key, if there is one. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Broken`] if it is not what was saved. Then it is removed.
    pub fn find(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        let directory = self.path.join(&key.name);
        if !directory.exists() {
            return Ok(None);
        }
        self.location.open().map_err(io::Error::from)?;
        match read(&directory) {
            Ok(snapshot) => Ok(snapshot),
            Err(error) => {
                // A snapshot that cannot be read now may be readable later.
                if matches!(error, SnapshotError::Broken(_)) {
                    self.remove(key);
                }
                Err(error)
            }
        }
    }

    /// Removes the snapshot with this key. Machines that were restored from it are not affected.
    pub fn remove(&self, key: &SnapshotKey) {
        let _ = fs::remove_dir_all(self.path.join(&key.name));
    }

    /// Takes the lock. `None` if another process has it, unless `wait` is set. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn lock(&self, wait: bool) -> Result<Option<StoreLock>, SnapshotError> {
        let directory = self.location.open().map_err(io::Error::from)?;
        let lock = directory.append("lock").map_err(io::Error::from)?;
        let how = if wait {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&lock, how) {
            Ok(()) => Ok(Some(StoreLock(lock))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Begins a new snapshot with this key. `None` if there is one already. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be used, or has no room for the memory.
    pub fn draft(
        &self,
        key: &SnapshotKey,
        lock: StoreLock,
    ) -> Result<Option<SnapshotDraft>, SnapshotError> {
        if key.disk.as_ref().is_some_and(|disk| disk.path().to_str().is_none()) {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename).into());
        }
        match self.find(key) {
            Ok(Some(_)) => return Ok(None),
            Ok(None) => {}
            // A broken one is removed by now. This removes what was left of it.
            Err(_) => self.remove(key),
        }
        remove_abandoned(&self.path)?;
        SnapshotDraft::begin(&self.path, self.limit, key, lock.0).map(Some)
    }

    /// Removes all snapshots of machines with this disk.
    pub fn remove_by_disk(&self, disk: &Path) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        let disk = json!(disk.to_str());
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            if read_manifest(&path).is_ok_and(|found| !disk.is_null() && found["image"] == disk) {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    /// The disk of each snapshot that has one.
    #[must_use]
    pub fn disks(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let manifests = entries.flatten().filter_map(|entry| read_manifest(&entry.path()).ok());
        manifests.filter_map(|found| Some(found["image"].as_str()?.into())).collect()
    }
}

impl Snapshot {
    /// The notes of the caller who kept it.
    #[must_use]
    pub const fn notes(&self) -> &Value {
        &self.notes
    }

    /// Marks the snapshot as in use. `None`: it cannot be marked, for example because it was
    /// removed meanwhile.
    #[must_use]
    pub fn mark_in_use(&self) -> Option<InUse> {
        InUse::mark(&self.directory)
    }

    /// The files, for [`MachineSpec::restore_from`](crate::MachineSpec::restore_from).
    #[must_use]
    pub fn files(&self) -> SnapshotFiles {
        files(&self.directory, self.has_disk)
    }

    /// The state of processors and devices, for
    /// [`MachineSpec::restore_from`](crate::MachineSpec::restore_from).
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    #[cfg(test)]
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The snapshot in a directory. `None` if QEMU could not open its files.
fn read(path: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let directory = Directory::open(path).map_err(of_private)?;
    let mut manifest = read_manifest(path)?;
    let described = |name| match fs::symlink_metadata(path.join(name)) {
        Ok(metadata) => Ok(describe(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error),
    };
    if described("memory")? != manifest["memory"] {
        return Err(SnapshotError::Broken("its memory was changed"));
    }
    let has_disk = !manifest["image"].is_null();
    if has_disk && described("disk")? != manifest["disk"] {
        return Err(SnapshotError::Broken("its disk was changed"));
    }
    let file = directory.read("state").map_err(of_private)?;
    let file = file.ok_or(SnapshotError::Broken("its state is missing"))?;
    let mut state = Vec::new();
    file.take(MAX_STATE + 1).read_to_end(&mut state)?;
    if digest(&state) != manifest["state"] {
        return Err(SnapshotError::Broken("its state was changed"));
    }
    // QEMU maps a private view of the memory, but opens the file for writing. With a cache that
    // cannot be written, machines boot.
    if File::options().read(true).write(true).open(path.join("memory")).is_err() {
        tracing::debug!(path = %path.display(), "the snapshot cannot be opened for writing");
        return Ok(None);
    }
    // The time of the last use, for the removal of old snapshots.
    let used = File::options().append(true).open(path.join("manifest"));
    let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
    let notes = manifest["words"].take();
    Ok(Some(Snapshot { directory: path.to_owned(), has_disk, state, notes }))
}
