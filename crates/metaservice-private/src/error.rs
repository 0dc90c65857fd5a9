//! Why a file or directory is not used.

use std::path::PathBuf;
use std::{fmt, io};

/// A file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The system reported an error.
    #[error("cannot use {path}")]
    Io {
        /// The path of the file or directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Other users can change it.
    #[error("{path} {cause}")]
    NotPrivate {
        /// The path of the file or directory.
        path: PathBuf,
        /// What is wrong with it.
        cause: NotPrivate,
    },
}

impl PrivateError {
    /// The kind of the system's error. [`NotPrivate`](Self::NotPrivate) is
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied).
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::NotPrivate { .. } => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<PrivateError> for io::Error {
    fn from(error: PrivateError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why other users could have changed a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPrivate {
    /// It is a symbolic link. Another user can have made it.
    Link,
    /// It is not the expected kind of file.
    Kind,
    /// It belongs to the user with this id.
    Owner(u32),
    /// Other users can write it: it has these permission bits.
    Mode(u32),
    /// It has this many names (hard links). Some may be in other directories.
    Names(u64),
}

impl fmt::Display for NotPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => write!(f, "is a symbolic link, and links are not followed here"),
            Self::Kind => write!(f, "is not a plain file or a directory, as expected"),
            Self::Owner(user) => write!(f, "belongs to the user with the id {user}"),
            Self::Mode(mode) => {
                write!(f, "can be written by other users (mode {mode:o}): type 'chmod go-w' for it")
            }
            Self::Names(count) => write!(f, "has {count} names (hard links)"),
        }
    }
}
