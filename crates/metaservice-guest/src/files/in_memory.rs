//! Directories in memory, which are listed without a thread.
//!
//! A walk runs on a blocking thread, because a disk may be slow and a network file system may hang.
//! For a small directory in tmpfs, waking that thread takes longer than the listing: two more
//! hand-overs of 10 to 30 µs each, in a list-folder that takes 150 µs in all. That is why this
//! second path is kept; see `loopback/list` in `docs/performance.md`.
//!
//! The threads learn which file systems are in memory. So the question itself never blocks.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use metaservice_private::lock;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

/// The kernel's numbers of tmpfs and ramfs.
const KINDS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// How many file systems are remembered.
const MAX_KNOWN: usize = 64;

/// File systems in memory, by major and minor device number.
static KNOWN: Mutex<BTreeSet<(u32, u32)>> = Mutex::new(BTreeSet::new());

/// Remembers the file system of an open directory, if it is in memory. May block.
pub(super) fn remember(directory: impl AsFd, device: u64) {
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let known = || lock(&KNOWN);
    if !known().contains(&device) && contains(directory) {
        let mut known = known();
        if known.len() < MAX_KNOWN {
            known.insert(device);
        }
    }
}

/// Whether an open file is in memory. May block.
pub(super) fn contains(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| KINDS.contains(&system.f_type))
}

/// Opens a directory that is known to be in memory. Never blocks.
pub(super) fn open(path: &Path) -> Option<OwnedFd> {
    // As a place first: to open a directory on a network file system may already hang.
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
    fn a_directory_is_opened_once_its_file_system_is_known_to_be_in_memory() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = |path: &Path| std::fs::metadata(path).unwrap().st_dev();
        remember(std::fs::File::open(directory.path()).unwrap(), device(directory.path()));
        assert!(open(directory.path()).is_some());
        assert!(open(&directory.path().join("none")).is_none());
        // procfs is not a file system in memory.
        let processes = Path::new("/proc/self");
        remember(std::fs::File::open(processes).unwrap(), device(processes));
        assert!(open(processes).is_none());
    }
}
