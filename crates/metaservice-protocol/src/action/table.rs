//! The table of actions: all that host and agent must know of each type, in one place.
//!
//! A type of action has a row here, a variant of [`ActionRequest`], and its JSON. The parser, the
//! host's queue, its reply end-point and the agent match on [`ActionKind`], [`ActionRequest`] or
//! [`ReplyKind`] without a `_` arm, so a new row does not compile until each of them handles it.
//! For that reason these three enums are not `#[non_exhaustive]`.

use super::attach::Attach;
use super::description::{ActionDescription, ReplyKind};
use super::dial::Dial;
use super::exec::Exec;
use super::file::{Read, Write};
use super::json::{ActionJson, options, to_options};
use super::list::List;
use super::signal::Signal;
use super::start::StartOptions;
use super::stats::StatsOptions;
use crate::announcement::Capability;
use crate::limits::ACTION_ATTEMPTS;

/// Makes [`ActionKind`] from its rows, so that a row cannot be missing in one of its methods.
macro_rules! actions {
    ($($(#[$doc:meta])+ $kind:ident { $($column:ident: $value:expr),+ $(,)? })+) => {
        /// A type of action.
        ///
        /// ```
        /// use metaservice_protocol::{ActionKind, Capability, ReplyKind};
        ///
        /// let stats = ActionKind::from_name("stats").unwrap().description();
        /// assert_eq!(stats.capability, Some(Capability::Stats));
        /// assert_eq!(stats.reply, ReplyKind::JsonLines);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ActionKind {
            $($(#[$doc])+ $kind,)+
        }

        impl ActionKind {
            /// All types, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// The row of this type.
            #[must_use]
            pub const fn description(self) -> ActionDescription {
                match self {
                    $(Self::$kind => ActionDescription { $($column: $value),+ },)+
                }
            }
        }
    };
}

actions! {
    /// Version 1: the raw bytes of a file.
    GetArtifact {
        name: "get-artifact",
        capability: None,
        reply: ReplyKind::Artifact,
        host_attempts: ACTION_ATTEMPTS,
        agent_repeats: true,
    }

    /// Version 1: the plain files below a directory.
    ListFolder {
        name: "list-folder",
        capability: None,
        reply: ReplyKind::Files,
        host_attempts: ACTION_ATTEMPTS,
        agent_repeats: true,
    }

    /// Version 1: an interactive command.
    ExecShell {
        name: "exec-shell",
        capability: None,
        reply: ReplyKind::Stream,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// Version 1: kill the job's command and all its descendants.
    KillProcess {
        name: "kill-process",
        capability: None,
        reply: ReplyKind::Done,
        host_attempts: ACTION_ATTEMPTS,
        agent_repeats: true,
    }

    /// Start the command of a job that holds it. The reply comes when the command was started, or
    /// has ended.
    Start {
        name: "start",
        capability: Some(Capability::Launch),
        reply: ReplyKind::Done,
        host_attempts: ACTION_ATTEMPTS,
        agent_repeats: true,
    }

    /// A command in addition to the job, with its streams.
    Exec {
        name: "exec",
        capability: Some(Capability::Exec),
        reply: ReplyKind::Stream,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// An exec with [`detach`](crate::ExecOptions::detach): start the command without streams.
    ExecDetached {
        name: "exec",
        capability: Some(Capability::Exec),
        reply: ReplyKind::Json,
        host_attempts: 1,
        agent_repeats: false,
    }

    /// A TCP connection to a port in the guest.
    Dial {
        name: "dial",
        capability: Some(Capability::Dial),
        reply: ReplyKind::Stream,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// A file or a directory out of the guest.
    Read {
        name: "read",
        capability: Some(Capability::Read),
        reply: ReplyKind::Transfer,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// A file or a directory into the guest.
    Write {
        name: "write",
        capability: Some(Capability::Write),
        reply: ReplyKind::Stream,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// The entries of a directory.
    List {
        name: "list",
        capability: Some(Capability::List),
        reply: ReplyKind::JsonLines,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// The guest's use of its processors, memory, disks and network.
    Stats {
        name: "stats",
        capability: Some(Capability::Stats),
        reply: ReplyKind::JsonLines,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// The standard input of the job's command.
    Attach {
        name: "attach",
        capability: Some(Capability::Attach),
        reply: ReplyKind::Stream,
        host_attempts: 1,
        agent_repeats: true,
    }

    /// A signal to the job's main process.
    Signal {
        name: "signal",
        capability: Some(Capability::Signal),
        reply: ReplyKind::Done,
        host_attempts: 1,
        agent_repeats: false,
    }
}

impl ActionKind {
    /// The type with this name on the wire; `None` for a type of another version. For `exec` it
    /// is [`Exec`](Self::Exec): only the options say whether it is detached.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.description().name == name)
    }

    /// Whether the agent may reply with this HTTP method. An action that needs a capability can
    /// also be refused, by a POST with a [`FAILURE_HEADER`](crate::header::FAILURE_HEADER).
    ///
    /// ```
    /// use metaservice_protocol::ActionKind;
    ///
    /// assert!(ActionKind::Dial.is_replied_by("GET") && ActionKind::Dial.is_replied_by("POST"));
    /// assert!(!ActionKind::ExecShell.is_replied_by("POST"));
    /// ```
    #[must_use]
    pub fn is_replied_by(self, method: &str) -> bool {
        let ActionDescription { capability, reply, .. } = self.description();
        method == reply.method() || capability.is_some() && method == "POST"
    }
}

/// What an action asks for, with its payload.
///
/// It is not `#[non_exhaustive]`: a new variant must not compile until each side handles it.
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
    /// A command in addition to the job.
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
    /// The standard input of the job's command.
    Attach(Attach),
    /// A signal to the job's main process.
    Signal(Signal),
    /// Start the command of a job that holds it.
    Start(StartOptions),
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
            Self::Attach(_) => ActionKind::Attach,
            Self::Signal(_) => ActionKind::Signal,
            Self::Start(_) => ActionKind::Start,
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

impl ActionRequest {
    /// The payload of an action of this type. `None` if the options are missing or invalid.
    pub(super) fn from_json(kind: ActionKind, json: ActionJson) -> Option<Self> {
        let path = json.path.unwrap_or_default();
        let command = json.command.unwrap_or_default();
        let tty = json.tty.unwrap_or_default();
        Some(match kind {
            ActionKind::GetArtifact => Self::GetArtifact { path },
            ActionKind::ListFolder => Self::ListFolder { path },
            ActionKind::ExecShell => Self::ExecShell { command, tty },
            ActionKind::KillProcess => Self::KillProcess,
            ActionKind::Exec | ActionKind::ExecDetached => {
                Self::Exec(Exec { command, tty, options: options(json.options)? })
            }
            ActionKind::Dial => Self::Dial(options(json.options)?),
            ActionKind::Read => Self::Read(Read { path, options: options(json.options)? }),
            ActionKind::Write => Self::Write(Write { path, options: options(json.options)? }),
            ActionKind::List => Self::List(List { path, options: options(json.options)? }),
            ActionKind::Stats => Self::Stats(options(json.options)?),
            ActionKind::Attach => Self::Attach(options(json.options)?),
            ActionKind::Signal => Self::Signal(options(json.options)?),
            ActionKind::Start => Self::Start(options(json.options)?),
        })
    }

    /// Writes the payload into the fields that it uses.
    pub(super) fn write(self, json: &mut ActionJson) {
        match self {
            Self::GetArtifact { path } | Self::ListFolder { path } => json.path = Some(path),
            Self::ExecShell { command, tty } => {
                (json.command, json.tty) = (Some(command), Some(tty));
            }
            Self::KillProcess => {}
            Self::Exec(Exec { command, tty, options }) => {
                (json.command, json.tty) = (Some(command), Some(tty));
                json.options = to_options(&options);
            }
            Self::Dial(dial) => json.options = to_options(&dial),
            Self::Read(Read { path, options }) => {
                (json.path, json.options) = (Some(path), to_options(&options));
            }
            Self::Write(Write { path, options }) => {
                (json.path, json.options) = (Some(path), to_options(&options));
            }
            Self::List(List { path, options }) => {
                (json.path, json.options) = (Some(path), to_options(&options));
            }
            Self::Stats(options) => json.options = to_options(&options),
            Self::Attach(attach) => json.options = to_options(&attach),
            Self::Signal(signal) => json.options = to_options(&signal),
            Self::Start(options) => json.options = to_options(&options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_detached_exec_shares_its_name() {
        for &kind in ActionKind::ALL {
            let named = ActionKind::from_name(kind.description().name);
            let expected = if kind == ActionKind::ExecDetached { ActionKind::Exec } else { kind };
            assert_eq!(named, Some(expected));
        }
        assert_eq!(ActionKind::from_name("fly"), None);
        assert_eq!(ActionKind::from_name("none"), None, "an answer without an action");
    }

    #[test]
    fn version_1_is_replied_to_by_one_method_and_extensions_can_be_refused() {
        for &kind in ActionKind::ALL {
            let methods = ["GET", "POST", "PUT"].map(|method| kind.is_replied_by(method));
            let description = kind.description();
            let expected = match (description.capability, description.reply) {
                (None, ReplyKind::Stream) => [true, false, false],
                (Some(_), ReplyKind::Stream) => [true, true, false],
                _ => [false, true, false],
            };
            assert_eq!(methods, expected, "{kind:?}");
        }
    }

    #[test]
    fn what_the_host_repeats_the_agent_repeats_too() {
        for &kind in ActionKind::ALL {
            let ActionDescription { host_attempts, agent_repeats, .. } = kind.description();
            assert!(host_attempts == 1 || agent_repeats, "{kind:?}");
        }
    }
}
