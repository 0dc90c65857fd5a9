//! Why an operation on the image store failed.

use std::io;
use std::path::{Path, PathBuf};

use metaservice_private::PrivateError;

use super::name::{ImageDigest, ImageName};
use crate::disk::{DiskError, Format};

/// An image that cannot be found, kept or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The directory, or a file in it, can be changed by other users.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The file is not an image that a machine may open.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The format is neither raw nor qcow2.
    #[error(
        "an image in the format {0:?} is not kept: convert it with 'qemu-img convert -O qcow2'"
    )]
    Format(Format),
    /// No image has this name or digest.
    #[error("there is no image {0:?}")]
    NoSuchImage(String),
    /// More than one digest has this beginning.
    #[error("more than one image begins with {0:?}")]
    Ambiguous(String),
    /// Another image has the name.
    #[error("there is another image with the name {0}")]
    NameTaken(ImageName),
    /// The file system has no room.
    #[error("there is no room: {needed} bytes are needed in {path}, and {available} are available")]
    Full {
        /// The directory.
        path: PathBuf,
        /// The bytes that are needed.
        needed: u64,
        /// The bytes that are available.
        available: u64,
    },
    /// The image was changed after its import. It is kept, so that the user can look at it.
    #[error("the image {0} was changed since its import: remove it, and import it again")]
    Changed(ImageDigest),
    /// The observer stopped the operation.
    #[error("stopped")]
    Stopped,
    /// There is no directory for images.
    #[error(
        "this user has no home directory, and XDG_DATA_HOME is not set: there is no directory for \
         images"
    )]
    NoHome,
}

/// Makes an error of an I/O error with a path. An interrupted operation was stopped by its
/// observer.
pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match source.kind() {
        io::ErrorKind::Interrupted => StoreError::Stopped,
        _ => StoreError::Io { path: path.to_owned(), source },
    }
}
