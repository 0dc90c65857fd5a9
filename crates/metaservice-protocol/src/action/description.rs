//! What a row of the [table](super::ActionKind) says.

use crate::announcement::Capability;

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
