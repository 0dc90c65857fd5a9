//! Actions: what the host asks of a guest, and what the guest replies.
//!
//! Owns the [table](ActionKind) of all types, the JSON that a poll is answered with, and the
//! payloads of each type. It does not decide which poll gets which action: that is the host's
//! queue.

mod dial;
mod exec;
mod file;
mod id;
mod json;
mod list;
mod signal;
mod stats;
mod table;

pub use dial::Dial;
pub use exec::{Detached, Exec, ExecOptions, TerminalSize};
pub use file::{FileHead, Form, Read, ReadOptions, Resume, Write, WriteFrom, WriteOptions};
pub use id::{ActionId, InvalidActionId};
pub use list::{DirectoryEntry, EntryKind, Files, List, ListOptions};
pub use signal::Signal;
pub use stats::{Stats, StatsOptions};
pub use table::{ActionDescription, ActionKind, ReplyKind};

use serde::{Deserialize, Serialize};

use crate::announcement::Capability;
use json::ActionJson;

/// What an action asks for, with its payload.
///
/// It is not `#[non_exhaustive]`: see [`ActionKind`], whose table describes each variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionRequest {
    /// Version 1: the raw bytes of a file.
    GetArtifact {
        /// The path of the file in the guest.
        path: String,
    },
    /// Version 1: the plain files below a directory.
    ListFolder {
        /// The path of the directory in the guest.
        path: String,
    },
    /// Version 1: an interactive command.
    ExecShell {
        /// The command and its arguments. Empty: the guest's default shell.
        command: Vec<String>,
        /// Whether the command gets a terminal.
        tty: bool,
    },
    /// Version 1: kill the job's command and all its descendants.
    KillProcess,
    /// A command beside the job's own.
    Exec(Exec),
    /// A TCP connection to a port in the guest.
    Dial(Dial),
    /// A file or a directory out of the guest.
    Read(Read),
    /// A file or a directory into the guest.
    Write(Write),
    /// The entries of a directory.
    List(List),
    /// The guest's use of its processors, memory, disks and network.
    Stats(StatsOptions),
    /// A signal to the job's main process.
    Signal(Signal),
}

impl ActionRequest {
    /// The type of this action.
    #[must_use]
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::GetArtifact { .. } => ActionKind::GetArtifact,
            Self::ListFolder { .. } => ActionKind::ListFolder,
            Self::ExecShell { .. } => ActionKind::ExecShell,
            Self::KillProcess => ActionKind::KillProcess,
            Self::Exec(exec) if exec.options.detach => ActionKind::ExecDetached,
            Self::Exec(_) => ActionKind::Exec,
            Self::Dial(_) => ActionKind::Dial,
            Self::Read(_) => ActionKind::Read,
            Self::Write(_) => ActionKind::Write,
            Self::List(_) => ActionKind::List,
            Self::Stats(_) => ActionKind::Stats,
            Self::Signal(_) => ActionKind::Signal,
        }
    }

    /// What the protocol says about this type of action.
    #[must_use]
    pub const fn description(&self) -> ActionDescription {
        self.kind().description()
    }

    /// The capability that an agent must announce before it gets this action; `None` for version
    /// 1. It is the one of the [description](Self::description), except for a large [`Exec`].
    #[must_use]
    pub fn capability(&self) -> Option<Capability> {
        if let Self::Exec(exec) = self
            && exec.is_large()
        {
            return Some(Capability::LargeExec);
        }
        self.description().capability
    }
}

/// One request of the host, under the id by which the agent replies.
///
/// On the wire it is a [`PollAnswer`].
///
/// ```
/// use metaservice_protocol::{Action, ActionId, ActionRequest, PollAnswer};
///
/// let id = ActionId::parse("a1").unwrap();
/// let request = ActionRequest::GetArtifact { path: "/etc/os-release".into() };
/// let answer = PollAnswer::Action(Action { id, request });
/// let json = serde_json::to_string(&answer).unwrap();
/// assert_eq!(serde_json::from_str::<PollAnswer>(&json).unwrap(), answer);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The id by which the agent replies.
    pub id: ActionId,
    /// What the host asks for.
    pub request: ActionRequest,
}

/// The answer of [`Endpoint::Poll`](crate::Endpoint::Poll).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ActionJson", into = "ActionJson")]
pub enum PollAnswer {
    /// An action to perform.
    Action(Action),
    /// There was no action in time: the agent polls again.
    None {
        /// An id of its own, which is never replied to.
        id: ActionId,
    },
    /// An action of a type, or with options, that this version does not know. The agent ignores
    /// it with a warning.
    Unknown {
        /// The id of the action.
        id: ActionId,
        /// The name of its type.
        name: String,
    },
}
