//! One small error for each operation of the handle.

use std::io;

pub use crate::job::queue::Stage;

/// Why an action has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The guest did not do its part in time: no agent polled, or it never replied.
    #[error("{}", match .0 {
        Stage::Pickup => "the guest did not ask for the action in time (no agent polls)",
        Stage::Reply => "the guest took the action and did not reply in time",
    })]
    TimedOut(Stage),
    /// The reply's connection broke, in each of the attempts that the protocol allows.
    /// The job itself is unharmed; asking again may work.
    #[error("the connection broke while the guest replied")]
    Transport(#[source] TransportError),
    /// What the guest replied with is no answer to the action, and why. The text is at most a
    /// sentence, and may quote the guest.
    #[error("the guest's reply was refused: {0}")]
    Invalid(String),
    /// The service has been [shut down](crate::MetaService::shutdown).
    #[error("the service has been shut down")]
    Terminated,
    /// A bug of metaservice: an action ended in a way that its type cannot.
    #[error("a bug of metaservice: {0}")]
    Unexpected(&'static str),
    /// So many [streams](crate::Bounds::streams) are open already.
    #[error("there are {0} shells and other streams already: end one of them")]
    TooMany(usize),
}

/// How a reply's connection broke.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The body could not be read to its end.
    #[error("the reply was cut off")]
    Cut(#[source] axum::Error),
    /// The body did not move for [`STALL_TIMEOUT`](metaservice_protocol::limits::STALL_TIMEOUT).
    #[error("the reply stalled")]
    Stalled,
    /// The connection was closed before the reply was complete.
    #[error("the connection was closed")]
    Closed,
    /// The websocket handshake did not complete.
    #[error("the websocket handshake failed")]
    Handshake(#[source] Option<axum::Error>),
}

/// Why [`get_artifact`](crate::MetaService::get_artifact) has no file.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The guest cannot open the file, or it is not a plain file.
    #[error("the guest has no such file")]
    NotFound,
    /// The guest has the file and cannot send it, and says why.
    #[error("the guest cannot send the file: {0}")]
    Refused(#[source] metaservice_protocol::Failure),
    /// What came is not what the guest sent.
    #[error("the file arrived damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The temporary storage on the host failed, for instance by a full disk.
    #[error("cannot store the file on the host")]
    Storage(#[source] io::Error),
    /// The action itself failed.
    #[error(transparent)]
    Action(#[from] ActionError),
}

/// Why [`list_folder`](crate::MetaService::list_folder) has no list.
#[derive(Debug, thiserror::Error)]
pub enum ListFolderError {
    /// The folder does not exist in the guest.
    #[error("the guest has no such folder")]
    NotFound,
    /// The action itself failed.
    #[error(transparent)]
    Action(#[from] ActionError),
}

/// Why a shell has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// The host side has [aborted](crate::Shell::abort) it.
    #[error("the shell was aborted")]
    Aborted,
    /// The service was shut down while the shell ran.
    #[error("the service has been shut down")]
    Terminated,
    /// The connection broke, went silent, or broke the rules before the shell's end.
    #[error("the connection to the shell was lost")]
    Disconnected,
}

impl From<ShellError> for io::Error {
    fn from(error: ShellError) -> Self {
        let kind = match error {
            ShellError::Aborted => io::ErrorKind::ConnectionAborted,
            ShellError::Terminated => io::ErrorKind::BrokenPipe,
            ShellError::Disconnected => io::ErrorKind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}
