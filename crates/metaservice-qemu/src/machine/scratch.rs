//! Where a machine writes that is to leave nothing on its disk.
//!
//! Owns the image without a name that takes it. QEMU gets it as a descriptor, so it needs no folder
//! of temporary files, and cannot see those of others.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::overlay;
use crate::spec::MachineSpec;
use crate::spec::snapshot::SnapshotUse;

/// Where QEMU puts temporary files if nobody says.
const FOLDER: &str = "/var/tmp";

/// What a machine writes to instead of its disk.
#[derive(Debug)]
pub(crate) enum Scratch {
    /// It has no disk, or what it writes there stays.
    None,
    /// An image over the disk's.
    Over(File),
    /// QEMU makes a temporary file: of a format that only it knows.
    In(PathBuf),
}

/// Makes what a machine needs.
///
/// # Errors
/// When the folder of temporary files cannot be used.
pub(crate) fn of(spec: &MachineSpec) -> io::Result<Scratch> {
    let Some(disk) = &spec.disk else { return Ok(Scratch::None) };
    let (below, format) = match &spec.snapshot {
        Some(SnapshotUse::Create(_)) => return Ok(Scratch::None),
        Some(SnapshotUse::Restore(files, _)) => match &files.disk {
            Some(below) => (below.as_path(), "qcow2"),
            None => (disk.path(), disk.format().name()),
        },
        None if spec.keeps_disk => return Ok(Scratch::None),
        None => (disk.path(), disk.format().name()),
    };
    let named = spec.scratch.clone().or_else(|| std::env::var_os("TMPDIR").map(PathBuf::from));
    let folder = named.filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| FOLDER.into()).canonicalize()?;
    match disk.known_size() {
        Some(size) => {
            let file = tempfile::tempfile_in(&folder)?;
            overlay::write(&file, below, format, size)?;
            Ok(Scratch::Over(file))
        }
        None => Ok(Scratch::In(folder)),
    }
}

impl Scratch {
    pub(crate) fn number(&self) -> Option<RawFd> {
        match self {
            Self::Over(file) => Some(file.as_raw_fd()),
            Self::None | Self::In(_) => None,
        }
    }

    /// The folder that QEMU writes to.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::In(folder) => Some(folder.clone()),
            Self::None | Self::Over(_) => None,
        }
    }

    pub(crate) fn into_descriptor(self) -> Option<OwnedFd> {
        match self {
            Self::Over(file) => Some(file.into()),
            Self::None | Self::In(_) => None,
        }
    }
}
