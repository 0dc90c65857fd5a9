//! Why a snapshot cannot be used or made.

use std::io;
use std::path::PathBuf;

use metaservice_private::PrivateError;

use crate::spec::error::InvalidSpec;

/// A snapshot that cannot be used, or cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It is not what was saved. It has been removed.
    #[error("the snapshot is broken: {0}")]
    Broken(&'static str),
    /// The directory of snapshots cannot be used.
    #[error("cannot use the directory of snapshots")]
    Io(#[from] io::Error),
    /// The description of the machine is invalid.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The size of the disk is not known.
    #[error("the disk {0} has a format of which no snapshot can be made")]
    DiskSize(PathBuf),
    /// The file system has no room for all of the machine's memory.
    #[error(
        "there is no room for the machine's memory: {needed} bytes are needed, and {available} \
         are available"
    )]
    Full {
        /// The bytes that the memory may need.
        needed: u64,
        /// The bytes that are available.
        available: u64,
    },
    /// There is no directory for snapshots.
    #[error("this user has no home directory, and XDG_CACHE_HOME is not set: there is no cache")]
    NoCache,
}

/// The error for a file that another user could have changed.
pub(super) fn of_private(error: PrivateError) -> SnapshotError {
    match error {
        PrivateError::Io { source, .. } => source.into(),
        _ => SnapshotError::Broken("others could have changed it"),
    }
}
