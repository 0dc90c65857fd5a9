//! A disk of a machine: a file or block device, and its format.
//!
//! Owns plain data. It does not look into the image: the format must be known before, because a
//! guest can write anything into a raw disk.

use std::path::{Path, PathBuf};

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format, versions 2 and 3.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// Hyper-V's format.
    Vhdx,
}

impl DiskFormat {
    /// QEMU's name of the format.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }
}

/// A disk image for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    path: PathBuf,
    format: DiskFormat,
    size: Option<u64>,
    refers_to_files: bool,
}

impl Disk {
    /// A disk at a path, which becomes absolute.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, format: DiskFormat) -> Self {
        let path = path.into();
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { path, format, size: None, refers_to_files: false }
    }

    /// The size in bytes of the disk that the guest sees. With it, the writes of the guest go to a
    /// file without a name. Without it, QEMU creates a temporary file for them, and no snapshot of
    /// the machine can be made.
    #[must_use]
    pub const fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Lets QEMU read the directory of the image, because the image names other files there. Only
    /// for an image whose author is trusted.
    #[must_use]
    pub const fn refers_to_files(mut self, refers: bool) -> Self {
        self.refers_to_files = refers;
        self
    }

    /// The absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> DiskFormat {
        self.format
    }

    pub(crate) const fn known_size(&self) -> Option<u64> {
        self.size
    }

    pub(crate) const fn needs_other_files(&self) -> bool {
        self.refers_to_files
    }
}
