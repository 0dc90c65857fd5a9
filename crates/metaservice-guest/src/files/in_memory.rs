//! Folders in memory, which can be looked at without a thread.
//!
//! A walk is given a thread because a disk may be slow and a network gone. A small folder in
//! memory keeps nobody waiting for as long as waking a thread takes. Which file systems are in memory
//! is learned by those threads, so that the question itself never waits either.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use metaservice_private::lock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

/// The kinds of file systems that are, as the kernel numbers them: tmpfs and ramfs.
const KINDS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// How many are remembered.
const MOST: usize = 64;

/// File systems in memory, by major and minor number.
static KNOWN: Mutex<BTreeSet<(u32, u32)>> = Mutex::new(BTreeSet::new());

/// Remembers the file system of an open folder, if it is in memory. May wait.
pub(super) fn learn(folder: impl AsFd, device: u64) {
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let known = || lock(&KNOWN);
    if !known().contains(&device) && holds(folder) {
        let mut known = known();
        if known.len() < MOST {
            known.insert(device);
        }
    }
}

/// Whether an open file is in memory. May wait.
pub(crate) fn holds(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| KINDS.contains(&system.f_type))
}

/// Opens a folder that is known to be in memory; never waits.
pub(super) fn open(path: &Path) -> Option<OwnedFd> {
    // Nothing is opened before it is known what it is on: a network may hang there already.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = rustix::fs::statx(&place, c"", flags, StatxFlags::TYPE).ok()?;
    let device = (status.stx_dev_major, status.stx_dev_minor);
    if !lock(&KNOWN).contains(&device) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&place, c".", flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_folder_is_opened_at_once_when_its_file_system_is_known_to_be_in_memory() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = |path: &Path| std::fs::metadata(path).unwrap().st_dev();
        learn(std::fs::File::open(folder.path()).unwrap(), device(folder.path()));
        assert!(open(folder.path()).is_some());
        assert!(open(&folder.path().join("none")).is_none());
        // Quick as it may be, it is none of those.
        let processes = Path::new("/proc/self");
        learn(std::fs::File::open(processes).unwrap(), device(processes));
        assert!(open(processes).is_none());
    }
}
