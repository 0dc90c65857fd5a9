//! Directories of the host that a guest mounts by 9p.
//!
//! Owns plain data, and the names of the devices. QEMU saves a machine with 9p devices if none of
//! them is mounted. So a machine that becomes a snapshot has devices without a directory, and a
//! machine that is restored gets the directories.

use std::path::PathBuf;

/// A directory of the host that a guest mounts by 9p. It is read-only unless it is
/// [`writable`](Self::writable).
///
/// ```
/// use metaservice_qemu::Share;
///
/// let source = Share::new("/home/me/project").writable();
/// assert_eq!(Share::tag(0), "metaservice0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub(crate) directory: PathBuf,
    pub(crate) writable: bool,
    pub(crate) is_root: bool,
}

impl Share {
    /// A directory that the guest reads.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), writable: false, is_root: false }
    }

    /// Lets the guest write. Its files belong to the user of this process. It can create links, but
    /// no devices, and no files with set-user-id or set-group-id bits.
    #[must_use]
    pub const fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// The guest makes it its root, and mounts its own `/run` and `/tmp` over those in it.
    #[must_use]
    pub const fn root(mut self) -> Self {
        self.is_root = true;
        self
    }

    /// The mount tag of the device with this number. The first one is 0.
    #[must_use]
    pub fn tag(number: usize) -> String {
        format!("metaservice{number}")
    }
}
