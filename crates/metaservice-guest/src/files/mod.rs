//! read and write: files and folders between host and guest, across cuts.
//!
//! Owns the two actions. Both work on blocking threads of the runtime, behind channels of a block
//! or two: a host that is slow holds the disk back, and a disk that is slow holds the host back.

pub(crate) mod artifact;
pub(crate) mod blocks;
mod compression;
mod in_memory;
pub(crate) mod list;
pub(crate) mod list_folder;
mod read;
mod sink;
mod source;
mod write;

use std::io;
use std::path::Path;

use metaservice_protocol::{Failure, FailureCode};
use rustix::io::Errno;

pub(crate) use self::read::read;
pub(crate) use self::write::{Transfers, write};

/// What the system's word is to the host.
fn failure(error: &io::Error, path: &Path) -> Failure {
    // One that has words of its own is not the system's.
    if error.raw_os_error().is_none() && error.get_ref().is_some() {
        return Failure::new(FailureCode::Invalid, format!("{}: {error}", path.display()));
    }
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    crate::files::list::failure(errno, path)
}
