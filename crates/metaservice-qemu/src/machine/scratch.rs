//! Where the guest's writes to its disk go, if they must be lost with the machine.
//!
//! Owns the file without a name that takes them. QEMU inherits its descriptor, so it needs no
//! directory for temporary files, and cannot see those of others.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::overlay;
use crate::spec::MachineSpec;
use crate::spec::snapshot::SnapshotUse;

/// The directory of temporary files if no other is set.
const DIRECTORY: &str = "/var/tmp";

/// Where the writes go.
#[derive(Debug)]
pub(crate) enum Scratch {
    /// The machine has no disk, or its writes are kept.
    None,
    /// To an overlay over the image of the disk.
    Over(File),
    /// To a temporary file that QEMU creates, because only QEMU knows the format.
    In(PathBuf),
}

/// Creates what a machine needs.
///
/// # Errors
/// If the directory of temporary files cannot be used.
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
    let directory = named.filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| DIRECTORY.into()).canonicalize()?;
    match disk.known_size() {
        Some(size) => {
            let file = tempfile::tempfile_in(&directory)?;
            overlay::write(&file, below, format, size)?;
            Ok(Scratch::Over(file))
        }
        None => Ok(Scratch::In(directory)),
    }
}

impl Scratch {
    pub(crate) fn number(&self) -> Option<RawFd> {
        match self {
            Self::Over(file) => Some(file.as_raw_fd()),
            Self::None | Self::In(_) => None,
        }
    }

    /// The directory in which QEMU creates a file.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::In(directory) => Some(directory.clone()),
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
