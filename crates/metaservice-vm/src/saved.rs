//! Saved machines on the disk, by what they were made of.
//!
//! Owns the folder: a saved machine is a folder in it that appears whole or not at all, is never
//! changed, and is gone as soon as it does not fit what it would be continued by. It refuses to
//! trust what it reads: a memory that was touched since, or a state of other bytes, is broken.
//!
//! | file | what |
//! | --- | --- |
//! | `KEY/memory` | the memory, sparse, mapped by the machines that go on from it |
//! | `KEY/state` | the state of processors and devices |
//! | `KEY/manifest` | sizes, times and digests of these two, and the caller's words |
//! | `lock` | locked while somebody makes one |

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::arguments::{self, Inherited};
use crate::cache::{self, Key};
use crate::save::MAX_STATE;
use crate::spec::{Boot, InvalidSpec, MachineSpec};

/// Changes with the layout, and with whatever a saved guest and its host agree on.
const LAYOUT: &[u8] = b"1";

/// How many are kept of one kernel, QEMU and agent: for other numbers of processors and sizes.
const KEPT: usize = 4;

/// The largest manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// The beginning of the names of folders that are being made.
const MAKING: &str = ".making-";

/// A saved machine that cannot be used, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is not what was saved. It has been removed.
    #[error("the saved machine is broken: {0}")]
    Broken(&'static str),
    /// The folder cannot be used.
    #[error("cannot use the folder of saved machines")]
    Io(#[from] io::Error),
    /// No machine can be started from this description at all.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// There is no folder to keep it in.
    #[error("neither XDG_CACHE_HOME nor HOME is set, so there is no cache folder")]
    NoCache,
}

/// The saved machines of this user.
#[derive(Debug, Clone)]
pub struct SavedMachines {
    folder: PathBuf,
}

/// Which machine a saved one is: everything that must be the same for it to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedKey {
    name: String,
    /// What changes with QEMU, kernel and agent alone.
    base: String,
}

/// A saved machine that can be [continued](MachineSpec::continue_from).
#[derive(Debug)]
pub struct Saved {
    folder: PathBuf,
    state: Vec<u8>,
    words: Value,
}

/// A saved machine in the making. Dropped, it is gone.
#[derive(Debug)]
pub struct Making {
    folder: tempfile::TempDir,
    key: SavedKey,
    saved: SavedMachines,
    _lock: File,
}

impl SavedKey {
    /// The key of a machine as described. The card's address counts, its other end does not.
    ///
    /// # Errors
    /// When no machine can be started from the description.
    pub fn of(spec: &MachineSpec) -> Result<Self, SavedError> {
        let accelerator = spec.accelerator.choose().map_err(InvalidSpec::from)?;
        let card = spec.card.as_ref().map(|_| 0);
        let words =
            arguments::qemu(spec, &accelerator, Inherited { monitor: 0, console: 0, card })?;
        let mut base = Key::default();
        base.bytes(LAYOUT).file(&fs::canonicalize(&spec.qemu.path)?)?;
        // A script may stand for the real one.
        base.bytes(spec.qemu.version.to_string().as_bytes()).bytes(&processor());
        if let Boot::Direct { kernel, initramfs, .. } = &spec.boot {
            for file in [Some(kernel), initramfs.as_ref()].into_iter().flatten() {
                cache::identify(&mut base, file)?;
            }
        }
        let base = base.name("base");
        let mut key = Key::default();
        key.bytes(base.as_bytes());
        for word in words {
            key.bytes(word.as_bytes());
        }
        Ok(Self { name: key.name("machine"), base })
    }
}

/// What this host's processor is: a machine that runs on it directly has its features.
fn processor() -> Vec<u8> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let kept = lines.filter(|line| line.starts_with("model name") || line.starts_with("flags"));
    kept.collect::<String>().into_bytes()
}

impl SavedMachines {
    /// Those in `$XDG_CACHE_HOME/metaservice/warm`.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn of_user() -> Result<Self, SavedError> {
        Ok(Self::at(cache::folder().ok_or(SavedError::NoCache)?.join("warm")))
    }

    /// Those in a folder, which is made when it is needed.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The saved machine of this key, if there is one.
    ///
    /// # Errors
    /// [`SavedError::Broken`] for one that is not what was saved: it is removed.
    pub fn find(&self, key: &SavedKey) -> Result<Option<Saved>, SavedError> {
        let folder = self.folder.join(&key.name);
        if !folder.exists() {
            return Ok(None);
        }
        match read(&folder) {
            Ok(saved) => Ok(Some(saved)),
            Err(error) => {
                self.remove(key);
                Err(error)
            }
        }
    }

    /// Removes the saved machine of this key. Machines that go on from it already do not notice.
    pub fn remove(&self, key: &SavedKey) {
        let _ = fs::remove_dir_all(self.folder.join(&key.name));
    }

    /// Begins to make the saved machine of this key; `None` when it is there, or when somebody
    /// makes one now.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn make(&self, key: &SavedKey) -> Result<Option<Making>, SavedError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let lock = File::options().create(true).append(true).open(self.folder.join("lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            || self.folder.join(&key.name).exists()
        {
            return Ok(None);
        }
        // Who made these was killed: it held the lock.
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.file_name().as_bytes().starts_with(MAKING.as_bytes()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix(MAKING)
            .permissions(private)
            .tempdir_in(&self.folder)?;
        let making = Making { folder, key: key.clone(), saved: self.clone(), _lock: lock };
        let memory = making.memory();
        File::create(&memory)?.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Some(making))
    }

    /// Removes those of another QEMU, kernel or agent, and of the others all but a few.
    fn prune(&self, base: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let manifest = path.join("manifest");
            let same = manifest_of(&path).is_ok_and(|found| found["base"] == base);
            match fs::metadata(&manifest).and_then(|metadata| metadata.modified()) {
                Ok(used) if same => kept.push((used, path)),
                _ => drop(fs::remove_dir_all(path)),
            }
        }
        kept.sort_by(|one, other| other.cmp(one));
        for (_, path) in kept.into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Making {
    /// The file for the [memory](MachineSpec::record_memory).
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.folder.path().join("memory")
    }

    /// Keeps the machine, whose QEMU has ended, with its state and words of the caller's. Blocks
    /// until all of it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written. Nothing of it is left then.
    pub fn keep(self, state: &[u8], words: &Value) -> Result<(), SavedError> {
        let memory = File::options().write(true).open(self.memory())?;
        memory.sync_all()?;
        let metadata = memory.metadata()?;
        write(&self.folder.path().join("state"), state)?;
        let manifest = json!({
            "base": self.key.base,
            "memory": description(&metadata),
            "state": digest(state),
            "words": words,
        });
        write(&self.folder.path().join("manifest"), manifest.to_string().as_bytes())?;
        let place = self.saved.folder.join(&self.key.name);
        fs::rename(self.folder.path(), &place)?;
        let _ = File::open(&self.saved.folder).and_then(|folder| folder.sync_all());
        self.saved.prune(&self.key.base);
        Ok(())
    }
}

impl Saved {
    /// The caller's words of when it was kept.
    #[must_use]
    pub const fn words(&self) -> &Value {
        &self.words
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    pub(crate) fn state(&self) -> &[u8] {
        &self.state
    }
}

fn manifest_of(folder: &Path) -> Result<Value, SavedError> {
    let mut text = Vec::new();
    File::open(folder.join("manifest"))?.take(MAX_MANIFEST).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| SavedError::Broken("its manifest cannot be read"))
}

fn read(folder: &Path) -> Result<Saved, SavedError> {
    let mut manifest = manifest_of(folder)?;
    if description(&fs::metadata(folder.join("memory"))?) != manifest["memory"] {
        return Err(SavedError::Broken("its memory was changed"));
    }
    let mut state = Vec::new();
    File::open(folder.join("state"))?.take(MAX_STATE + 1).read_to_end(&mut state)?;
    if digest(&state) != manifest["state"] {
        return Err(SavedError::Broken("its state was changed"));
    }
    // Used again: the last to be pruned.
    let used = File::options().append(true).open(folder.join("manifest"));
    let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Saved { folder: folder.to_owned(), state, words: manifest["words"].take() })
}

/// By what a memory is known to be the same, without reading all of it.
fn description(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()])
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
