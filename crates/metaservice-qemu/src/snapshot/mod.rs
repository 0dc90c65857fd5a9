//! Saved machines on the disk, by what they were made of.
//!
//! Owns the folder: a saved machine is a folder in it that appears whole or not at all, is never
//! changed, and is gone as soon as it does not fit what it would be continued by. It refuses to
//! trust what it reads: a memory that was touched since, or a state of other bytes, is broken.
//!
//! | file | what |
//! | --- | --- |
//! | `KEY/memory` | the memory, sparse, mapped by the machines that go on from it |
//! | `KEY/disk` | what the machine has written to its disk, over the disk's image; if it has one |
//! | `KEY/state` | the state of processors and devices |
//! | `KEY/manifest` | sizes, times and digests of these, and the caller's words |
//! | `lock` | locked while somebody makes one |

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use metaservice_private::{Directory, Location, PrivateError, hex};
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek};
use rustix::io::Errno;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cache::{self, Key};
use crate::command_line::{self, Inherited};
use crate::machine::state::MAX_STATE;
use crate::overlay;
use crate::spec::disk::Disk;
use crate::spec::{Boot, InvalidSpec, MachineSpec, SnapshotFiles};

/// Changes with the layout, and with whatever a saved guest and its host agree on.
const LAYOUT: &[u8] = b"2";

/// How many are kept of what boots alike: for other numbers of processors and sizes.
const KEPT: usize = 4;

/// The largest manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// The beginning of the names of folders that are being made.
const MAKING: &str = ".making-";

/// A saved machine that cannot be used, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not what was saved. It has been removed.
    #[error("the saved machine is broken: {0}")]
    Broken(&'static str),
    /// The folder cannot be used.
    #[error("cannot use the folder of saved machines")]
    Io(#[from] io::Error),
    /// No machine can be started from this description at all.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The size of the disk is not known.
    #[error("the disk {0} has a format of which no snapshot can be made")]
    DiskSize(PathBuf),
    /// The file system has no room for a memory that the guest may fill.
    #[error("there is no room for the machine's memory: {needed} bytes, and {available} are there")]
    Full {
        /// How much it may become.
        needed: u64,
        /// How much there is.
        available: u64,
    },
    /// There is no folder to keep it in.
    #[error("this user has no home directory, and XDG_CACHE_HOME is not set: there is no cache")]
    NoCache,
}

/// The saved machines of this user.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    location: Location,
    folder: PathBuf,
}

/// Which machine a saved one is: everything that must be the same for it to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    name: String,
    /// What changes with QEMU and the host's processor alone.
    host: String,
    /// What it boots from, whatever is in it: a kernel, or a disk.
    family: String,
    /// What changes with all that it boots from.
    base: String,
    disk: Option<Disk>,
    memory: u64,
}

/// A saved machine that can be [restored](MachineSpec::restore_from).
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    has_disk: bool,
    state: Vec<u8>,
    notes: Value,
}

/// The right to make a saved machine, which one process has at a time.
#[derive(Debug)]
pub struct StoreLock(#[expect(dead_code, reason = "it is held, not read")] File);

/// A saved machine in the making. Dropped, it is gone.
#[derive(Debug)]
pub struct SnapshotDraft {
    folder: tempfile::TempDir,
    key: SnapshotKey,
    store: SnapshotStore,
    _lock: StoreLock,
}

impl SnapshotKey {
    /// The key of a machine as described. The card's address counts, its other end does not.
    ///
    /// # Errors
    /// When no machine can be started from the description.
    pub fn of(spec: &MachineSpec) -> Result<Self, SnapshotError> {
        let accelerator = spec.accelerator.choose().map_err(InvalidSpec::from)?;
        let card = spec.card.as_ref().map(|_| 0);
        let words =
            command_line::qemu(spec, &accelerator, Inherited { card, ..Inherited::default() })?;
        let mut host = Key::default();
        host.bytes(LAYOUT).file(&fs::canonicalize(&spec.qemu.path)?)?;
        // A script may stand for the real one.
        host.bytes(spec.qemu.version.to_string().as_bytes()).bytes(&processor());
        let host = host.name("host");
        let (mut base, mut family) = (Key::default(), Key::default());
        base.bytes(host.as_bytes());
        if let Boot::Direct { kernel, initramfs, .. } = &spec.boot {
            for file in [Some(kernel), initramfs.as_ref()].into_iter().flatten() {
                cache::identify(&mut base, file.path())?;
            }
        }
        if let Some(disk) = &spec.disk {
            family.bytes(disk.path().as_os_str().as_bytes());
            base.file(disk.path())?;
        }
        let base = base.name("base");
        let mut key = Key::default();
        key.bytes(base.as_bytes());
        for word in words {
            key.bytes(word.as_bytes());
        }
        Ok(Self {
            name: key.name("machine"),
            host,
            family: family.name("family"),
            base,
            disk: spec.disk.clone(),
            memory: spec.memory.mebibytes() << 20,
        })
    }
}

impl SnapshotKey {
    /// Also depends on these bytes: what somebody brings in while the machine boots.
    #[must_use]
    pub fn depending_on(mut self, bytes: &[u8]) -> Self {
        for part in [&mut self.base, &mut self.name] {
            let mut key = Key::default();
            key.bytes(part.as_bytes()).bytes(bytes);
            *part = key.name("besides");
        }
        self
    }
}

/// What this host's processor is: a machine that runs on it directly has its features.
fn processor() -> Vec<u8> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let kept = lines.filter(|line| line.starts_with("model name") || line.starts_with("flags"));
    kept.collect::<String>().into_bytes()
}

impl SnapshotStore {
    /// Those in `$XDG_CACHE_HOME/metaservice/warm`.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn of_user() -> Result<Self, SnapshotError> {
        let location = Location::Cache("warm");
        let folder = location.path().ok_or(SnapshotError::NoCache)?;
        Ok(Self { location, folder })
    }

    /// Those in a folder, which is made when it is needed.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { location: Location::At(folder.clone()), folder }
    }

    /// The saved machine of this key, if there is one.
    ///
    /// # Errors
    /// [`SnapshotError::Broken`] for one that is not what was saved: it is removed.
    pub fn find(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        let folder = self.folder.join(&key.name);
        if !folder.exists() {
            return Ok(None);
        }
        self.location.open().map_err(io::Error::from)?;
        match read(&folder) {
            Ok(saved) => Ok(saved),
            Err(error) => {
                // What cannot be read now may be read later.
                if matches!(error, SnapshotError::Broken(_)) {
                    self.remove(key);
                }
                Err(error)
            }
        }
    }

    /// Removes the saved machine of this key. Machines that go on from it already do not notice.
    pub fn remove(&self, key: &SnapshotKey) {
        let _ = fs::remove_dir_all(self.folder.join(&key.name));
    }

    /// Becomes the only maker; `None` where there is another one, unless it is to wait for that.
    ///
    /// # Errors
    /// When the folder cannot be used.
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

    /// Begins to make the saved machine of this key. Waits for nobody.
    ///
    /// # Errors
    /// When the folder cannot be used, or has no room.
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
            // A broken one is gone by now, and the rest of half of one goes here.
            Err(_) => self.remove(key),
        }
        // Who made these was killed: it held the lock.
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.file_name().as_bytes().starts_with(MAKING.as_bytes()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        check_room(&self.folder, key.memory)?;
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix(MAKING)
            .permissions(private)
            .tempdir_in(&self.folder)?;
        let draft = SnapshotDraft { folder, key: key.clone(), store: self.clone(), _lock: lock };
        let create = |path: &Path| {
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            io::Result::Ok(file)
        };
        let files = draft.files();
        reserve(&create(&files.memory)?, key.memory)?;
        if let (Some(disk), Some(over)) = (&key.disk, &files.disk) {
            let over = create(over)?;
            let size = disk.known_size();
            let size = size.ok_or_else(|| SnapshotError::DiskSize(disk.path().to_owned()))?;
            overlay::write(&over, disk.path(), disk.format().name(), size)?;
        }
        Ok(Some(draft))
    }

    /// Removes all that go on from a disk.
    pub fn remove_by_disk(&self, disk: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let disk = json!(disk.to_str());
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            if manifest_of(&path).is_ok_and(|found| !disk.is_null() && found["image"] == disk) {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    /// The disks of all that are saved, one for each machine.
    #[must_use]
    pub fn disks(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let manifests = entries.flatten().filter_map(|entry| manifest_of(&entry.path()).ok());
        manifests.filter_map(|found| Some(found["image"].as_str()?.into())).collect()
    }

    /// Removes those of another QEMU, of a disk that is gone and of other bytes of what `key`
    /// boots from; and of those that boot alike all but a few.
    fn prune(&self, key: &SnapshotKey) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let used = fs::metadata(path.join("manifest")).and_then(|manifest| manifest.modified());
            let (Ok(found), Ok(used)) = (manifest_of(&path), used) else {
                let _ = fs::remove_dir_all(path);
                continue;
            };
            let disk_is_gone =
                found["image"].as_str().is_some_and(|disk| !Path::new(disk).exists());
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
}

impl SnapshotDraft {
    /// The files, for [`MachineSpec::snapshot_to`].
    #[must_use]
    pub fn files(&self) -> SnapshotFiles {
        files(self.folder.path(), self.key.disk.is_some())
    }

    /// Refuses where the memory that the machine has not filled yet finds no room any longer: where
    /// the file system cannot reserve it, that is what ends a QEMU without a word.
    ///
    /// # Errors
    /// [`SnapshotError::Full`].
    pub fn check_room(&self) -> Result<(), SnapshotError> {
        let filled = fs::metadata(self.files().memory)?.blocks() * 512;
        check_room(self.folder.path(), self.key.memory.saturating_sub(filled))
    }

    /// Keeps the machine, whose QEMU has ended, with its state and words of the caller's. Blocks
    /// until all of it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written. Nothing of it is left then.
    pub fn keep(self, state: &[u8], notes: &Value) -> Result<(), SnapshotError> {
        let files = self.files();
        let mut manifest = json!({
            "host": self.key.host,
            "family": self.key.family,
            "base": self.key.base,
            "image": self.key.disk.as_ref().and_then(|disk| disk.path().to_str()),
            "state": digest(state),
            "words": notes,
        });
        for (name, path) in [("memory", Some(&files.memory)), ("disk", files.disk.as_ref())] {
            let Some(path) = path else { continue };
            let file = File::options().write(true).open(path)?;
            file.sync_all()?;
            if name == "memory" {
                give_back(&file)?;
                file.sync_all()?;
            }
            manifest[name] = description(&file.metadata()?);
        }
        write(&self.folder.path().join("state"), state)?;
        write(&self.folder.path().join("manifest"), manifest.to_string().as_bytes())?;
        File::open(self.folder.path())?.sync_all()?;
        let place = self.store.folder.join(&self.key.name);
        fs::rename(self.folder.path(), &place)?;
        let _ = File::open(&self.store.folder).and_then(|folder| folder.sync_all());
        self.store.prune(&self.key);
        Ok(())
    }
}

impl Snapshot {
    /// The caller's words of when it was kept.
    #[must_use]
    pub const fn notes(&self) -> &Value {
        &self.notes
    }

    /// The files, for [`MachineSpec::restore_from`].
    #[must_use]
    pub fn files(&self) -> SnapshotFiles {
        files(&self.folder, self.has_disk)
    }

    /// The state of processors and devices, for [`MachineSpec::restore_from`].
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }
}

fn files(folder: &Path, disk: bool) -> SnapshotFiles {
    SnapshotFiles { memory: folder.join("memory"), disk: disk.then(|| folder.join("disk")) }
}

/// Refuses where a memory that becomes full would find no room: QEMU would die of it.
fn check_room(folder: &Path, needed: u64) -> Result<(), SnapshotError> {
    let available = available(&File::open(folder)?)?;
    if needed > available { Err(SnapshotError::Full { needed, available }) } else { Ok(()) }
}

fn available(file: &File) -> io::Result<u64> {
    let there = rustix::fs::fstatvfs(file)?;
    Ok(there.f_bavail.saturating_mul(there.f_frsize))
}

/// Takes the room for a memory: QEMU would die, without a word, of a page that finds none. Where
/// the file system cannot do that, others may take it meanwhile.
fn reserve(memory: &File, size: u64) -> Result<(), SnapshotError> {
    match fallocate(memory, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(Errno::NOSPC | Errno::DQUOT) => {
            Err(SnapshotError::Full { needed: size, available: available(memory)? })
        }
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// Gives back what of a reserved file was never written. What cannot be given back stays.
fn give_back(memory: &File) -> io::Result<()> {
    let end = memory.metadata()?.len();
    let mut at = 0;
    while at < end {
        let Ok(hole) = seek(memory, SeekFrom::Hole(at)) else { break };
        let data = match seek(memory, SeekFrom::Data(hole)) {
            Ok(data) => data,
            Err(Errno::NXIO) => end,
            Err(_) => break,
        };
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if hole >= data || fallocate(memory, how, hole, data - hole).is_err() {
            break;
        }
        at = data;
    }
    Ok(())
}

fn manifest_of(folder: &Path) -> Result<Value, SnapshotError> {
    let mut text = Vec::new();
    File::open(folder.join("manifest"))?.take(MAX_MANIFEST).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| SnapshotError::Broken("its manifest cannot be read"))
}

/// The saved machine in a directory; none where QEMU could not open its files.
fn read(folder: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let directory = Directory::open(folder).map_err(of_others)?;
    let mut manifest = manifest_of(folder)?;
    let described = |name| match fs::symlink_metadata(folder.join(name)) {
        Ok(metadata) => Ok(description(&metadata)),
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
    let state_file = directory.read("state").map_err(of_others)?;
    let state_file = state_file.ok_or(SnapshotError::Broken("its state is not there"))?;
    let mut state = Vec::new();
    state_file.take(MAX_STATE + 1).read_to_end(&mut state)?;
    if digest(&state) != manifest["state"] {
        return Err(SnapshotError::Broken("its state was changed"));
    }
    // QEMU maps a private memory, but opens its file for writing. A cache that cannot be written
    // gives machines that boot.
    if File::options().read(true).write(true).open(folder.join("memory")).is_err() {
        tracing::debug!(folder = %folder.display(), "a saved machine that cannot be written");
        return Ok(None);
    }
    // Used again: the last to be pruned.
    let used = File::options().append(true).open(folder.join("manifest"));
    let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
    let notes = manifest["words"].take();
    Ok(Some(Snapshot { folder: folder.to_owned(), has_disk, state, notes }))
}

fn of_others(error: PrivateError) -> SnapshotError {
    match error {
        PrivateError::Refused { .. } => SnapshotError::Broken("others could have changed it"),
        PrivateError::Io { source, .. } => source.into(),
    }
}

/// By what a memory is known to be the same, without reading all of it.
fn description(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()])
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
