//! The errors of a copy.

use std::io;
use std::path::PathBuf;

use metaservice::control::ClientError;
use metaservice::{ListError, ReadError, WriteError};
use metaservice_archive::ExtractError;

/// Why a copy failed. An existing file at the destination is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The copy does not fit its destination.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The source on the host cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The source on the host is a socket, a FIFO or a device.
    #[error("{} is neither a file, a directory nor a link", .0.display())]
    Kind(PathBuf),
    /// The destination on the host cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The guest's archive cannot be extracted.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The guest announced a link, and sent something else.
    #[error("the guest did not send the link that it had announced")]
    NotALink,
    /// The guest does not send it.
    #[error(transparent)]
    FromGuest(#[from] ReadError),
    /// The guest does not take it.
    #[error(transparent)]
    ToGuest(#[from] WriteError),
    /// The guest does not list the destination.
    #[error(transparent)]
    List(#[from] ListError),
    /// The control socket of the job refuses, or does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The transfer broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a copy does not fit its destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A source such as `/` has no name that it could have in a directory.
    #[error("the file has no name in the directory {}", .0.display())]
    NoName(PathBuf),
    /// The directory of the destination does not exist.
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    /// The directory of the destination does not exist in the guest.
    #[error("there is no directory {0} in the guest")]
    NoGuestDirectory(String),
    /// The destination is a file, and the source a directory.
    #[error("{} exists and is not a directory: a directory cannot be copied to it", .0.display())]
    NotADirectory(PathBuf),
    /// The destination is a link that an earlier copy may have created.
    #[error(
        "{} is a link, which a directory does not follow: remove it, or name it as the destination",
        .0.display()
    )]
    Link(PathBuf),
}
