//! Why no machine can be started from a description.

use std::path::PathBuf;

use super::accelerator::AcceleratorError;

/// A description that no machine can be started from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// The accelerator is not available.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A kernel, an initramfs or a directory does not exist.
    #[error("cannot use {what} {path}")]
    Path {
        /// What it is for.
        what: &'static str,
        /// The path, as it was given.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The root file system is on a disk that the machine does not have.
    #[error("the root file system is to come from {0}, which the machine does not have")]
    NoRoot(&'static str),
    /// The firmware has no disk to boot from.
    #[error("a machine without a kernel needs a disk to boot from")]
    NothingToBoot,
    /// The text is not a host name.
    #[error("{0:?} is no host name")]
    HostName(String),
    /// A kernel argument has a character that would end it.
    #[error("{0:?} cannot be a kernel argument")]
    KernelArgument(String),
    /// A file system of the host's kernel cannot be shown.
    #[error("{0} is the host kernel's own and cannot be shown to a guest")]
    NotToBeShown(PathBuf),
    /// The guest mounts its own `/run` and `/tmp`.
    #[error("{0} cannot be shown: the guest has its own /run and /tmp")]
    Covered(PathBuf),
    /// A path to show is within a hidden one.
    #[error("{path} cannot be shown without {above}, which is hidden")]
    WithinHidden {
        /// The path to show.
        path: PathBuf,
        /// The hidden path.
        above: PathBuf,
    },
    /// The host's mount table cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    Mounts(#[source] std::io::Error),
    /// The kernel command line is too long.
    #[error("a kernel command line of {0} bytes is too long")]
    CommandLineTooLong(usize),
}
