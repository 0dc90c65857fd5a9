//! The files of a snapshot, as a machine uses them.

use std::path::PathBuf;

/// The files that hold the memory of a machine, and its writes to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    pub(crate) memory: PathBuf,
    /// An image over the image of the disk.
    pub(crate) disk: Option<PathBuf>,
    /// A directory with nothing in it, for 9p devices without one.
    pub(crate) empty: PathBuf,
}

/// How a machine uses a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotUse {
    /// It writes to the files of a new snapshot.
    Create(SnapshotFiles),
    /// It is restored from the files of a snapshot, which it never writes, and from the state of
    /// processors and devices.
    Restore(SnapshotFiles, Vec<u8>),
}
