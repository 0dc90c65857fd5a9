//! Actions: what the host asks of a guest.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_ACTION_ID;

/// The name of one action, unique among all that a service ever issues.
///
/// Only the characters that stand in a URL's query unescaped (RFC 3986 section 2.3)
/// are accepted, so an id can never change the request that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActionId(String);

/// A text that is not an [`ActionId`]: empty, too long, or not URL-safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an action id is 1 to {MAX_ACTION_ID} of the characters A-Z a-z 0-9 - . _ ~")]
pub struct InvalidActionId;

impl ActionId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`InvalidActionId`] when `text` is empty, longer than
    /// [`MAX_ACTION_ID`](crate::limits::MAX_ACTION_ID) bytes, or holds a character that is not URL-safe.
    pub fn parse(text: &str) -> Result<Self, InvalidActionId> {
        Self::try_from(text.to_owned())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ActionId {
    type Error = InvalidActionId;

    fn try_from(text: String) -> Result<Self, InvalidActionId> {
        let safe = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
        if text.is_empty() || text.len() > MAX_ACTION_ID || !text.bytes().all(safe) {
            return Err(InvalidActionId);
        }
        Ok(Self(text))
    }
}

impl From<ActionId> for String {
    fn from(id: ActionId) -> Self {
        id.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an action asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Nothing; the poll has timed out and is to be repeated.
    None,
    /// The raw bytes of a file.
    GetArtifact {
        /// Where the file is in the guest.
        path: String,
    },
    /// All plain files below a folder.
    ListFolder {
        /// Where the folder is in the guest.
        path: String,
    },
    /// An interactive command.
    ExecShell {
        /// The command; empty means the guest's default shell.
        command: Vec<String>,
        /// Whether the command gets a terminal.
        tty: bool,
    },
    /// The end of the job's main process and its descendants.
    KillProcess,
    /// A type that this version does not know. A guest ignores it with a warning.
    Unknown {
        /// The unknown type's name.
        name: String,
    },
}

impl Request {
    /// The word for this request on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::None => "none",
            Self::GetArtifact { .. } => "get-artifact",
            Self::ListFolder { .. } => "list-folder",
            Self::ExecShell { .. } => "exec-shell",
            Self::KillProcess => "kill-process",
            Self::Unknown { name } => name,
        }
    }

    /// The method by which a guest replies; `None` where no reply is due.
    #[must_use]
    pub const fn reply_method(&self) -> Option<&'static str> {
        match self {
            Self::GetArtifact { .. } | Self::ListFolder { .. } | Self::KillProcess => Some("POST"),
            Self::ExecShell { .. } => Some("GET"),
            Self::None | Self::Unknown { .. } => None,
        }
    }
}

/// One request of the host with its name: the answer of `GET /engine/v1/poll`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Action {
    /// The name under which the guest replies.
    pub id: ActionId,
    /// What is asked.
    pub request: Request,
}

/// The five fields that are always present on the wire.
#[derive(Serialize, Deserialize)]
struct Wire {
    id: ActionId,
    #[serde(rename = "type")]
    name: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    tty: Option<bool>,
}

impl From<Wire> for Action {
    fn from(wire: Wire) -> Self {
        let path = wire.path.unwrap_or_default();
        let request = match wire.name.as_str() {
            "none" => Request::None,
            "get-artifact" => Request::GetArtifact { path },
            "list-folder" => Request::ListFolder { path },
            "exec-shell" => Request::ExecShell {
                command: wire.command.unwrap_or_default(),
                tty: wire.tty.unwrap_or_default(),
            },
            "kill-process" => Request::KillProcess,
            _ => Request::Unknown { name: wire.name },
        };
        Self { id: wire.id, request }
    }
}

impl From<Action> for Wire {
    fn from(action: Action) -> Self {
        let name = action.request.name().to_owned();
        let (path, command, tty) = match action.request {
            Request::GetArtifact { path } | Request::ListFolder { path } => (path, None, false),
            Request::ExecShell { command, tty } => (String::new(), Some(command), tty),
            Request::None | Request::KillProcess | Request::Unknown { .. } => {
                (String::new(), None, false)
            }
        };
        Self { id: action.id, name, path: Some(path), command, tty: Some(tty) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            Just(Request::None),
            any::<String>().prop_map(|path| Request::GetArtifact { path }),
            any::<String>().prop_map(|path| Request::ListFolder { path }),
            (proptest::collection::vec(any::<String>(), 0..4), any::<bool>())
                .prop_map(|(command, tty)| Request::ExecShell { command, tty }),
            Just(Request::KillProcess),
            "x-[a-z]{1,8}".prop_map(|name| Request::Unknown { name }),
        ]
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(id in "[A-Za-z0-9._~-]{1,40}", request in request()) {
            let action = Action { id: ActionId::parse(&id).unwrap(), request };
            let json = serde_json::to_vec(&action).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Action>(&json).unwrap(), action);
        }

        #[test]
        fn an_id_never_needs_escaping(text in any::<String>()) {
            if let Ok(id) = ActionId::parse(&text) {
                prop_assert!(!id.as_str().contains(|c: char| "&=#?/%+ \r\n".contains(c) || !c.is_ascii()));
            }
        }
    }

    #[test]
    fn all_five_fields_are_always_present() {
        let action = Action { id: ActionId::parse("x").unwrap(), request: Request::KillProcess };
        assert_eq!(
            serde_json::to_string(&action).unwrap(),
            r#"{"id":"x","type":"kill-process","path":"","command":null,"tty":false}"#
        );
    }

    #[test]
    fn a_type_of_the_future_is_kept_by_name() {
        let json = r#"{"id":"x","type":"dial","path":"","command":null,"tty":false,"port":22}"#;
        let action: Action = serde_json::from_str(json).unwrap();
        assert_eq!(action.request, Request::Unknown { name: "dial".into() });
    }

    #[test]
    fn ids_out_of_bounds_are_refused() {
        assert!(ActionId::parse("").is_err());
        assert!(ActionId::parse(&"a".repeat(MAX_ACTION_ID)).is_ok());
        assert!(ActionId::parse(&"a".repeat(MAX_ACTION_ID + 1)).is_err());
        assert!(ActionId::parse("a&id=b").is_err());
    }
}
