//! The files of a snapshot, as a machine uses them.

use std::path::PathBuf;

/// The files that hold the memory of a machine, and what it has written to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    pub(crate) memory: PathBuf,
    /// An image over that of the disk.
    pub(crate) disk: Option<PathBuf>,
}

/// How a machine uses a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotUse {
    /// It writes to the files of a new one.
    Create(SnapshotFiles),
    /// It starts from the files of one, which it never writes, and from the state of processors
    /// and devices.
    Restore(SnapshotFiles, Vec<u8>),
}
