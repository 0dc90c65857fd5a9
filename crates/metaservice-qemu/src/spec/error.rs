//! Why no machine can be started from a description.

use std::path::PathBuf;

use super::accelerator::AcceleratorError;

/// A description that no machine can be started from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// The accelerator cannot be had.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A kernel, initramfs or folder is not there.
    #[error("cannot use {what} {path}")]
    Path {
        /// What it was to be.
        what: &'static str,
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The root file system is to come from a disk or folder that the machine does not have.
    #[error("the root file system is to come from {0}, which the machine does not have")]
    NoRoot(&'static str),
    /// Firmware finds nothing to boot without a disk.
    #[error("a machine without a kernel needs a disk to boot from")]
    NothingToBoot,
    /// A port is to lead into a machine that no network leads into.
    #[error("a published port needs the user network")]
    NothingToPublish,
    /// Not a host name.
    #[error("{0:?} is no host name")]
    HostName(String),
    /// A kernel argument with a character that would end it or the command line.
    #[error("{0:?} cannot be a kernel argument")]
    KernelArgument(String),
    /// The host's kernel file systems are shown to no guest.
    #[error("{0} is the host kernel's own and cannot be shown to a guest")]
    NotToBeShown(PathBuf),
    /// The guest mounts `/run` and `/tmp` over those of the host.
    #[error("{0} cannot be shown: the guest has its own /run and /tmp")]
    Covered(PathBuf),
    /// A path that is to be shown, within one that is hidden.
    #[error("{path} cannot be shown without {above}, which is hidden")]
    WithinHidden {
        /// The path.
        path: PathBuf,
        /// What it is in.
        above: PathBuf,
    },
    /// The host's table of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    Mounts(#[source] std::io::Error),
    /// Longer than a kernel reads.
    #[error("a kernel command line of {0} bytes is too long")]
    CommandLineTooLong(usize),
}
