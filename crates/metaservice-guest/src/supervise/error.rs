//! Why a supervisor did not start its command.

use std::io;

use crate::state::StateError;

/// A supervisor that failed before its command was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    /// The kernel denied something that it normally grants.
    #[error("the supervisor cannot work")]
    Io(#[from] io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the agent is gone")]
    AgentGone,
    /// The agent does not want this process to start the command.
    #[error("the order was cancelled")]
    Cancelled,
    #[error("the command already has a supervisor")]
    AlreadySupervised,
}
