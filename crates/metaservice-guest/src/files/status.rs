//! What the kernel says of a file, in the units of the protocol.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{OFlags, Stat};

/// When a file was last modified, in nanoseconds since 1970.
pub(super) fn mtime_ns(status: &Stat) -> i64 {
    let nanoseconds = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
    status.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Opens a regular file for reading that was opened as a place (`O_PATH`) and looked at before.
///
/// It opens that very file, even if another has its name by now. It never blocks: a few regular
/// files of `/proc` have no end.
pub(super) fn open_place(place: impl AsFd) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", place.as_fd().as_raw_fd()))
}
