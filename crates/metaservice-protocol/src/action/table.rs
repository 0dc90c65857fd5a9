//! The table of actions: what the host and the agent must know of each type, in one place.
//!
//! The parser, the host's queue, its reply end-point and the agent read this table. They match on
//! [`ActionKind`], [`ActionRequest`](super::ActionRequest) or [`ReplyKind`] without a `_` arm, so
//! a new row does not compile until each of them handles it. For that reason these three enums
//! are not `#[non_exhaustive]`.

use crate::announcement::Capability;
use crate::limits::ACTION_ATTEMPTS;

/// What the protocol says about one type of action: one row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActionDescription {
    /// The value of `type` on the wire.
    pub name: &'static str,
    /// The capability that an agent must announce before it gets this action. `None`: the action
    /// is part of version 1, and each agent has it.
    pub capability: Option<Capability>,
    /// How the agent replies.
    pub reply: ReplyKind,
    /// How often the host offers the action, each time under a new id, if the connection of the
    /// reply breaks. 1 if a second time could have a second effect.
    pub host_attempts: u32,
    /// Whether the agent performs the action again if its reply did not reach the host. If not,
    /// it repeats the reply only.
    pub agent_repeats: bool,
}

/// How the agent replies to an action at [`Endpoint::Reply`](crate::Endpoint::Reply).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// A file's raw bytes, or [`ERROR_HEADER`](crate::header::ERROR_HEADER) (version 1).
    Artifact,
    /// A [`Files`](crate::Files) payload (version 1). It may also be sent to
    /// [`Endpoint::ListFolder`](crate::Endpoint::ListFolder).
    Files,
    /// An empty body: the action was performed.
    Done,
    /// One small JSON value, at most [`MAX_LINE`](crate::limits::MAX_LINE) bytes.
    Json,
    /// Lines of JSON, of at most [`MAX_LINE`](crate::limits::MAX_LINE) bytes each.
    JsonLines,
    /// A [`transfer`](crate::transfer), with its
    /// [`FILE_HEADER`](crate::header::FILE_HEADER).
    Transfer,
    /// A [`shell`](crate::shell) stream on a websocket.
    Stream,
}

impl ReplyKind {
    /// The HTTP method of the reply.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Stream => "GET",
            Self::Artifact
            | Self::Files
            | Self::Done
            | Self::Json
            | Self::JsonLines
            | Self::Transfer => "POST",
        }
    }
}

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

    /// A command beside the job's own, with its streams.
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
