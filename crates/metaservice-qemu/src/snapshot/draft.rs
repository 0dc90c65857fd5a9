//! A new snapshot.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::error::SnapshotError;
use super::files::{
    MAKING, check_room, create, describe, digest, files, read_manifest, release_holes, reserve,
    write,
};
use super::key::SnapshotKey;
use super::usage;
use crate::overlay;
use crate::spec::snapshot::SnapshotFiles;

/// How many snapshots with the same family are kept: for other numbers of processors and sizes.
pub(super) const KEPT: usize = 4;

/// A new snapshot. Dropped, it is removed.
#[derive(Debug)]
pub struct SnapshotDraft {
    directory: tempfile::TempDir,
    key: SnapshotKey,
    store: PathBuf,
    limit: u64,
    _lock: File,
}

impl SnapshotDraft {
    /// Begins one in the directory of the store, whose lock the caller holds.
    pub(super) fn begin(
        store: &Path,
        limit: u64,
        key: &SnapshotKey,
        lock: File,
    ) -> Result<Self, SnapshotError> {
        check_room(store, key.memory)?;
        let directory = tempfile::Builder::new()
            .prefix(MAKING)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(store)?;
        let draft =
            Self { directory, key: key.clone(), store: store.to_owned(), limit, _lock: lock };
        let files = draft.files();
        reserve(&create(&files.memory)?, key.memory)?;
        fs::create_dir(&files.empty)?;
        if let (Some(disk), Some(over)) = (&key.disk, &files.disk) {
            let unknown = || SnapshotError::DiskSize(disk.path().to_owned());
            let size = disk.known_size().ok_or_else(unknown)?;
            overlay::write(&create(over)?, disk.path(), disk.format().name(), size)?;
        }
        Ok(draft)
    }

    /// The files, for [`MachineSpec::snapshot_to`](crate::MachineSpec::snapshot_to).
    #[must_use]
    pub fn files(&self) -> SnapshotFiles {
        files(self.directory.path(), self.key.disk.is_some())
    }

    /// Checks that there is room for the memory that the machine has not filled yet. On a file
    /// system that cannot reserve room, its lack kills QEMU without a message.
    ///
    /// # Errors
    /// [`SnapshotError::Full`].
    pub fn check_room(&self) -> Result<(), SnapshotError> {
        let filled = fs::metadata(self.files().memory)?.blocks() * 512;
        check_room(self.directory.path(), self.key.memory.saturating_sub(filled))
    }

    /// Keeps the snapshot, with the state of a machine whose QEMU has ended, and notes of the
    /// caller. Blocks until everything is on the disk.
    ///
    /// # Errors
    /// If it cannot be written. Then nothing of it is left.
    pub fn keep(self, state: &[u8], notes: &Value) -> Result<(), SnapshotError> {
        let files = self.files();
        let mut manifest = json!({
            "host": self.key.host,
            "family": self.key.family,
            "base": self.key.base,
            "cpus": self.key.cpus,
            "image": self.key.disk.as_ref().and_then(|disk| disk.path().to_str()),
            "state": digest(state),
            "words": notes,
        });
        for (name, path) in [("memory", Some(&files.memory)), ("disk", files.disk.as_ref())] {
            let Some(path) = path else { continue };
            let file = File::options().write(true).open(path)?;
            file.sync_all()?;
            if name == "memory" {
                release_holes(&file)?;
                file.sync_all()?;
            }
            manifest[name] = describe(&file.metadata()?);
        }
        let directory = self.directory.path();
        write(&directory.join("state"), state)?;
        write(&directory.join("manifest"), manifest.to_string().as_bytes())?;
        File::open(directory)?.sync_all()?;
        let store = &self.store;
        fs::rename(directory, store.join(&self.key.name))?;
        let _ = File::open(store).and_then(|store| store.sync_all());
        prune(store, &self.key);
        usage::evict(store, self.limit, &self.key.name);
        Ok(())
    }
}

/// Removes the snapshots that are of no use any more: of another QEMU, of a disk that is gone, and
/// of the same family with another content. Of the same family and content, it keeps the
/// [`KEPT`] most recently used.
fn prune(store: &Path, key: &SnapshotKey) {
    let Ok(entries) = fs::read_dir(store) else { return };
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let used = fs::metadata(path.join("manifest")).and_then(|manifest| manifest.modified());
        let (Ok(found), Ok(used)) = (read_manifest(&path), used) else {
            let _ = fs::remove_dir_all(path);
            continue;
        };
        let disk_is_gone = found["image"].as_str().is_some_and(|disk| !Path::new(disk).exists());
        let family = found["family"] == key.family;
        if found["host"] != key.host || disk_is_gone || (family && found["base"] != key.base) {
            let _ = fs::remove_dir_all(path);
        } else if family {
            kept.push((used, path));
        }
    }
    kept.sort_by(|one, other| other.cmp(one));
    for (_, path) in kept.into_iter().skip(KEPT) {
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes what killed processes left. The caller holds the lock of the store.
pub(super) fn remove_abandoned(store: &Path) -> io::Result<()> {
    for entry in fs::read_dir(store)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(MAKING.as_bytes()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
