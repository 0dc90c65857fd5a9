//! One error for each operation of the handle.
//!
//! *Not found* is the variant `NotFound` of each error whose operation can have it, whatever the
//! version of the agent.

use std::io;

use metaservice_protocol::limits::MAX_ACTION;
use metaservice_protocol::{Capability, Failure, FailureCode};

use crate::job::actions::AttemptError;
pub(crate) use crate::job::error::BoxError;
use crate::job::error::TransportError;
use crate::job::queue::Stage;

/// Why an action has no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// The guest did not do its part in time: no agent polled, or the agent did not reply.
    #[error("{}", match .0 {
        Stage::Pickup => "the guest does not answer: its agent did not ask for the action in time",
        Stage::Reply => "the guest took the action and did not reply in time",
    })]
    TimedOut(Stage),
    /// The reply's connection broke, in each of the attempts that the protocol allows. The job is
    /// not harmed; another call may succeed.
    #[error("the connection broke while the guest replied")]
    Transport(#[source] TransportError),
    /// The guest's reply is not a valid one. The cause may quote the guest.
    #[error("the guest's reply is not valid")]
    Invalid(#[source] BoxError),
    /// The guest's agent has not announced that it can do this.
    #[error("the guest's agent does not offer '{}': it has version 1 of the protocol, or is an older agent", .0.name())]
    Unsupported(Capability),
    /// The agent can do this, and says why it does not.
    #[error("the guest refuses: {0}")]
    Failed(#[source] Failure),
    /// The service has been [shut down](crate::MetaService::shutdown).
    #[error("the service has been shut down")]
    Terminated,
    /// A bug of metaservice: an action ended in a way that its type cannot.
    #[error("a bug of metaservice: {0}")]
    Unexpected(&'static str),
    /// As many streams are open as [`Limits::streams`](crate::Limits::streams) allows: their
    /// number.
    #[error("there are {0} shells and other streams already: end one of them")]
    TooManyStreams(usize),
}

impl ActionError {
    pub(crate) fn invalid(error: impl Into<BoxError>) -> Self {
        Self::Invalid(error.into())
    }

    pub(crate) fn kind(&self) -> io::ErrorKind {
        use io::ErrorKind as Kind;
        match self {
            Self::TimedOut(_) => Kind::TimedOut,
            Self::Transport(_) | Self::Terminated | Self::TooManyStreams(_) => {
                Kind::ConnectionReset
            }
            Self::Invalid(_) => Kind::InvalidData,
            Self::Unexpected(_) => Kind::Other,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Failed(failure) => match failure.code {
                FailureCode::NotFound => Kind::NotFound,
                FailureCode::PermissionDenied => Kind::PermissionDenied,
                FailureCode::NoSpace => Kind::StorageFull,
                FailureCode::ConnectionRefused => Kind::ConnectionRefused,
                _ => Kind::Other,
            },
        }
    }

    /// Takes a failure with the code *not found* out.
    fn split(self) -> Result<Failure, Self> {
        match self {
            Self::Failed(failure) if failure.code == FailureCode::NotFound => Ok(failure),
            other => Err(other),
        }
    }
}

impl From<AttemptError> for ActionError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::TimedOut(stage) => Self::TimedOut(stage),
            AttemptError::Transport(cause) => Self::Transport(cause),
            AttemptError::Invalid(reason) => Self::Invalid(reason.into()),
            AttemptError::Terminated => Self::Terminated,
            AttemptError::Unsupported(capability) => Self::Unsupported(capability),
            AttemptError::Refused(failure) => Self::Failed(failure),
            AttemptError::NoFile => {
                Self::Failed(Failure::new(FailureCode::NotFound, "the guest has no such file"))
            }
            AttemptError::Storage(_) => Self::Unexpected("a file as the reply to another action"),
        }
    }
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The guest has no such program, working directory or user.
    #[error("{0}")]
    NotFound(#[source] Failure),
    /// The command and its environment are larger than
    /// [`MAX_ACTION`](metaservice_protocol::limits::MAX_ACTION).
    #[error(
        "the command and its environment are too long: as JSON they have more than {MAX_ACTION} bytes"
    )]
    TooLong,
    /// The command ran, and its end is unknown.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The command ran, and wrote more than
    /// [`output_limit`](crate::Command::output_limit) allows: this many bytes.
    #[error("the command wrote more than {0} bytes")]
    OutputTooLong(usize),
    /// The action failed.
    #[error(transparent)]
    Action(ActionError),
}

impl From<ActionError> for ExecError {
    fn from(error: ActionError) -> Self {
        error.split().map_or_else(Self::Action, Self::NotFound)
    }
}

/// Why a file or directory of the guest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The guest has no such file. [`ReadRequest::spool`](crate::ReadRequest::spool) reports so as
    /// well if the agent cannot open it, or if it is not a plain file.
    #[error("{0}")]
    NotFound(#[source] Failure),
    /// It has more bytes than [`Limits::artifact`](crate::Limits::artifact): this many.
    #[error("the guest's file is larger than {0} bytes")]
    TooLarge(u64),
    /// The temporary storage on the host failed, for example because the disk is full.
    #[error("cannot store the file on the host")]
    Storage(#[source] io::Error),
    /// The action failed.
    #[error(transparent)]
    Action(ActionError),
}

impl ReadError {
    pub(crate) fn invalid(error: impl Into<BoxError>) -> Self {
        Self::Action(ActionError::invalid(error))
    }
}

impl From<ActionError> for ReadError {
    fn from(error: ActionError) -> Self {
        error.split().map_or_else(Self::Action, Self::NotFound)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::NotFound(_) => io::ErrorKind::NotFound,
            ReadError::TooLarge(_) => io::ErrorKind::FileTooLarge,
            ReadError::Storage(cause) => cause.kind(),
            ReadError::Action(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// Why a file or directory could not be written to the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The guest has no such directory.
    #[error("{0}")]
    NotFound(#[source] Failure),
    /// The source cannot be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] io::Error),
    /// The action failed.
    #[error(transparent)]
    Action(ActionError),
}

impl WriteError {
    pub(crate) fn invalid(error: impl Into<BoxError>) -> Self {
        Self::Action(ActionError::invalid(error))
    }
}

impl From<ActionError> for WriteError {
    fn from(error: ActionError) -> Self {
        error.split().map_or_else(Self::Action, Self::NotFound)
    }
}

/// Why a directory of the guest could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The guest has no such directory.
    #[error("{0}")]
    NotFound(#[source] Failure),
    /// The action failed.
    #[error(transparent)]
    Action(ActionError),
}

impl ListError {
    pub(crate) fn no_directory() -> Self {
        Self::NotFound(Failure::new(FailureCode::NotFound, "the guest has no such directory"))
    }
}

impl From<ActionError> for ListError {
    fn from(error: ActionError) -> Self {
        error.split().map_or_else(Self::Action, Self::NotFound)
    }
}

/// Why the end of a command is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The host has [aborted](crate::Child::abort) it.
    #[error("the command was aborted")]
    Aborted,
    /// The service was shut down while the command ran.
    #[error("the service has been shut down")]
    Terminated,
    /// The stream broke, became silent, or violated the protocol before the command's end.
    #[error("the connection to the command was lost")]
    Disconnected,
}

impl From<ChildError> for io::Error {
    fn from(error: ChildError) -> Self {
        let kind = match error {
            ChildError::Aborted => io::ErrorKind::ConnectionAborted,
            ChildError::Terminated => io::ErrorKind::BrokenPipe,
            ChildError::Disconnected => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}
