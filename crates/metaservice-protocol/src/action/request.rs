//! An action: its id and its payload.

use super::dial::Dial;
use super::exec::Exec;
use super::file::{Read, Write};
use super::id::ActionId;
use super::list::List;
use super::signal::Signal;
use super::stats::StatsOptions;
use super::table::{ActionDescription, ActionKind};
use crate::announcement::Capability;

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
