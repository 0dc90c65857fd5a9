//! Where a machine writes that is to leave nothing on its disk.
//!
//! Owns the image without a name that takes it. QEMU gets it as a descriptor, so it needs no folder
//! of temporary files, and cannot see those of others.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::image::{Disk, DiskError};
use crate::qcow2;
use crate::spec::{MachineSpec, Record};

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
    let (below, format) = match &spec.record {
        Some(Record::Made(_)) => return Ok(Scratch::None),
        Some(Record::Continued(written, _)) => match &written.disk {
            Some(below) => (below.as_path(), "qcow2"),
            None => (disk.path(), disk.format().name()),
        },
        None if spec.keeps_disk => return Ok(Scratch::None),
        None => (disk.path(), disk.format().name()),
    };
    let named = spec.scratch.clone().or_else(|| std::env::var_os("TMPDIR").map(PathBuf::from));
    let folder = named.filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| FOLDER.into()).canonicalize()?;
    match size(disk)? {
        Some(size) => {
            let file = tempfile::tempfile_in(&folder)?;
            qcow2::write_overlay(&file, below, format, size)?;
            Ok(Scratch::Over(file))
        }
        None => Ok(Scratch::In(folder)),
    }
}

/// The size of a disk, if its format says it in a way that is known here.
fn size(disk: &Disk) -> io::Result<Option<u64>> {
    match disk.size() {
        Ok(size) => Ok(Some(size)),
        Err(DiskError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
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
