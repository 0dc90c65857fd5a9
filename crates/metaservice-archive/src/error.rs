//! Why an archive was not extracted.

use std::io;

use rustix::io::Errno;

/// A member of an archive was refused, or the archive as a whole. Members before it are in place.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", String::from_utf8_lossy(member).escape_debug())]
#[non_exhaustive]
pub struct ExtractError {
    /// The member's name in the archive. Empty if the error has no member.
    pub member: Vec<u8>,
    /// What is wrong.
    pub cause: ExtractCause,
}

/// What is wrong with a member or an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractCause {
    /// The name is empty or absolute, contains `..` or NUL, or is too long or too deep.
    #[error("the name is not allowed")]
    Name,
    /// The member is a device, a FIFO, a sparse file, or of an unknown kind.
    #[error("this kind of member is not allowed")]
    Kind,
    /// The stream ends at a place where the archive must continue.
    #[error("the archive breaks off before its end")]
    Unended,
    /// There are bytes other than zeros after the end of the archive.
    #[error("the archive has more after its end")]
    AfterEnd,
    /// A header contradicts another one, or the stream ends within a member.
    #[error("the archive is not well-formed")]
    Corrupt,
    /// The archive exceeds one of the [`ExtractLimits`](crate::ExtractLimits).
    #[error("the archive exceeds the limits")]
    Limit,
    /// The system reported an error. For a name that leads through a link it is `ELOOP` or
    /// `ENOTDIR`.
    #[error(transparent)]
    System(#[from] Errno),
    /// The archive cannot be read, or a file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ExtractError {
    pub(crate) fn of(member: &[u8], cause: ExtractCause) -> Self {
        Self { member: member.to_vec(), cause }
    }

    /// An error of the archive as a whole.
    pub(crate) fn unnamed(cause: impl Into<ExtractCause>) -> Self {
        Self::of(b"", cause.into())
    }
}
