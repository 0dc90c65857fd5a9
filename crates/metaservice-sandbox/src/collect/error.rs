//! The errors of artifacts.

use std::io;
use std::path::PathBuf;

use metaservice::{ActionError, ListError, ReadError};
use metaservice_archive::ExtractCause;

use crate::copy::CopyError;
use crate::progress::ProgressError;

/// How many names may match one pattern.
pub(super) const MAX_MATCHES: usize = 100_000;

/// Why an artifact was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The guest has no such file or directory.
    #[error("the guest has no such file or directory")]
    NotFound,
    /// No name in the guest matches the pattern.
    #[error("nothing in the guest matches")]
    NoMatch,
    /// The directories that the pattern leads to have more entries than this limit.
    #[error("there are more than {0} names to compare with the pattern")]
    TooManyNames(usize),
    /// More names match than the host fetches.
    #[error("more than {} names match: fetch their directory", MAX_MATCHES)]
    TooManyMatches,
    /// The guest has a name that no file can have.
    #[error("the guest sent a name that no file can have: {0:?}")]
    NoName(String),
    /// Two artifacts would be written to one path. Neither is.
    #[error("{other} has the same destination, {}: neither is written", path.display())]
    SameDestination {
        /// The other artifact's path in the guest.
        other: String,
        /// The destination.
        path: PathBuf,
    },
    /// It is larger than this limit, together with other files of the same artifact.
    #[error("the artifact is larger than {0} bytes")]
    TooLarge(u64),
    /// The guest did not list a directory.
    #[error(transparent)]
    List(#[from] ListError),
    /// The guest did not list a directory to its end.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The guest did not send it.
    #[error(transparent)]
    Fetch(ReadError),
    /// A directory was not copied.
    #[error(transparent)]
    Copy(CopyError),
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its destination.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It was fetched, and that cannot be persisted.
    #[error(transparent)]
    Progress(#[from] ProgressError),
}

impl CollectError {
    /// Whether it has more bytes, or names, than it may have.
    pub(super) const fn is_too_large(&self) -> bool {
        match self {
            Self::TooLarge(_) | Self::Fetch(ReadError::TooLarge(_)) => true,
            Self::Copy(CopyError::Extract(error)) => matches!(error.cause, ExtractCause::Limit),
            _ => false,
        }
    }
}
