//! Actions: what the host asks of a guest.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::announcement::Capability;
use crate::limits::MAX_ACTION_ID;
use crate::options::{Dial, Exec, List, Read, Signal, StatsOptions, Write};

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
    /// Extension: a command beside the job's own.
    Exec(Exec),
    /// Extension: a TCP connection to a port in the guest.
    Dial(Dial),
    /// Extension: a file or a folder out of the guest.
    Read(Read),
    /// Extension: a file or a folder into the guest.
    Write(Write),
    /// Extension: the entries of a folder.
    List(List),
    /// Extension: what the guest is doing.
    Stats(StatsOptions),
    /// Extension: a signal to the job's main process.
    Signal(Signal),
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
            Self::Exec(_) => "exec",
            Self::Dial(_) => "dial",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::List(_) => "list",
            Self::Stats(_) => "stats",
            Self::Signal(_) => "signal",
            Self::Unknown { name } => name,
        }
    }

    /// Whether a guest may reply by this method. An extended action may always be refused
    /// by a POST; those that end in a stream are granted by a GET.
    #[must_use]
    pub fn is_replied_by(&self, method: &str) -> bool {
        match self {
            Self::GetArtifact { .. } | Self::ListFolder { .. } | Self::KillProcess => {
                method == "POST"
            }
            Self::ExecShell { .. } => method == "GET",
            Self::Exec(_) | Self::Dial(_) | Self::Write(_) => method == "GET" || method == "POST",
            Self::Read(_) | Self::List(_) | Self::Stats(_) | Self::Signal(_) => method == "POST",
            Self::None | Self::Unknown { .. } => false,
        }
    }

    /// What an agent must have announced to be sent this; `None` for what version 1 has.
    #[must_use]
    pub fn needs(&self) -> Option<Capability> {
        match self {
            Self::Exec(exec) if exec.is_large() => Some(Capability::LargeExec),
            Self::Exec(_) => Some(Capability::Exec),
            Self::Dial(_) => Some(Capability::Dial),
            Self::Read(_) => Some(Capability::Read),
            Self::Write(_) => Some(Capability::Write),
            Self::List(_) => Some(Capability::List),
            Self::Stats(_) => Some(Capability::Stats),
            Self::Signal(_) => Some(Capability::Signal),
            _ => None,
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

/// The five fields that are always present on the wire, and the one that extended types have.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<serde_json::Value>,
}

impl From<Wire> for Action {
    fn from(wire: Wire) -> Self {
        let Wire { id, name, path, command, tty, options } = wire;
        let path = path.unwrap_or_default();
        let command = command.unwrap_or_default();
        let tty = tty.unwrap_or_default();
        let request = match name.as_str() {
            "none" => Some(Request::None),
            "get-artifact" => Some(Request::GetArtifact { path }),
            "list-folder" => Some(Request::ListFolder { path }),
            "exec-shell" => Some(Request::ExecShell { command, tty }),
            "kill-process" => Some(Request::KillProcess),
            "exec" => read(options).map(|options| Request::Exec(Exec { command, tty, options })),
            "dial" => read(options).map(Request::Dial),
            "read" => read(options).map(|options| Request::Read(Read { path, options })),
            "write" => read(options).map(|options| Request::Write(Write { path, options })),
            "list" => read(options).map(|options| Request::List(List { path, options })),
            "stats" => read(options).map(Request::Stats),
            "signal" => read(options).map(Request::Signal),
            _ => None,
        };
        // Options that make no sense are of a version that is not ours, like unknown types.
        Self { id, request: request.unwrap_or(Request::Unknown { name }) }
    }
}

fn read<T: serde::de::DeserializeOwned>(options: Option<serde_json::Value>) -> Option<T> {
    serde_json::from_value(options?).ok()
}

fn write<T: Serialize>(options: &T) -> Option<serde_json::Value> {
    serde_json::to_value(options).ok()
}

impl From<Action> for Wire {
    fn from(action: Action) -> Self {
        let name = action.request.name().to_owned();
        let mut wire = Self {
            id: action.id,
            name,
            path: Some(String::new()),
            command: None,
            tty: Some(false),
            options: None,
        };
        match action.request {
            Request::GetArtifact { path } | Request::ListFolder { path } => wire.path = Some(path),
            Request::ExecShell { command, tty } => {
                wire.command = Some(command);
                wire.tty = Some(tty);
            }
            Request::Exec(exec) => {
                wire.command = Some(exec.command);
                wire.tty = Some(exec.tty);
                wire.options = write(&exec.options);
            }
            Request::Dial(dial) => wire.options = write(&dial),
            Request::Read(Read { path, options }) => {
                wire.path = Some(path);
                wire.options = write(&options);
            }
            Request::Write(Write { path, options }) => {
                wire.path = Some(path);
                wire.options = write(&options);
            }
            Request::List(List { path, options }) => {
                wire.path = Some(path);
                wire.options = write(&options);
            }
            Request::Stats(options) => wire.options = write(&options),
            Request::Signal(signal) => wire.options = write(&signal),
            Request::None | Request::KillProcess | Request::Unknown { .. } => {}
        }
        wire
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::{
        ExecOptions, Form, ListOptions, ReadOptions, Resume, TerminalSize, WriteOptions,
    };

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            Just(Request::None),
            any::<String>().prop_map(|path| Request::GetArtifact { path }),
            any::<String>().prop_map(|path| Request::ListFolder { path }),
            (proptest::collection::vec(any::<String>(), 0..4), any::<bool>())
                .prop_map(|(command, tty)| Request::ExecShell { command, tty }),
            Just(Request::KillProcess),
            "x-[a-z]{1,8}".prop_map(|name| Request::Unknown { name }),
            (any::<String>(), any::<u16>())
                .prop_map(|(host, port)| Request::Dial(Dial { host, port })),
            (any::<String>(), any::<bool>()).prop_map(|(path, recursive)| {
                Request::List(List { path, options: ListOptions { recursive } })
            }),
            any::<Option<u32>>()
                .prop_map(|interval_ms| Request::Stats(StatsOptions { interval_ms })),
            any::<u8>().prop_map(|signal| Request::Signal(Signal { signal })),
            (any::<String>(), any::<u64>(), any::<Option<u64>>(), any::<bool>()).prop_map(
                |(path, offset, length, compress)| {
                    let resume =
                        length.map(|skip| Resume { cursor: path.clone(), skip, digest: offset });
                    let form = Form::Any;
                    Request::Read(Read {
                        path,
                        options: ReadOptions {
                            form,
                            offset,
                            length,
                            compress,
                            follow: Some(compress),
                            resume,
                        },
                    })
                }
            ),
            (any::<String>(), any::<Option<String>>(), any::<Option<u32>>(), any::<Option<i64>>())
                .prop_map(|(path, name, mode, mtime_ns)| {
                    let transfer = ActionId::parse("t1").unwrap();
                    let form = Form::Archive;
                    Request::Write(Write {
                        path,
                        options: WriteOptions {
                            form,
                            transfer,
                            name,
                            mode,
                            mtime_ns,
                            set_id: mode.is_some(),
                        },
                    })
                }),
            (any::<Option<String>>(), any::<Option<(u16, u16)>>(), any::<bool>()).prop_map(
                |(user, size, detach)| {
                    let size = size.map(|(columns, rows)| TerminalSize { columns, rows });
                    let options = ExecOptions { user, size, detach, ..ExecOptions::default() };
                    Request::Exec(Exec { command: vec!["a".into()], tty: true, options })
                }
            ),
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
    fn a_large_exec_goes_to_agents_that_take_it() {
        let needs = |argument: String| {
            Request::Exec(Exec { command: vec![argument], ..Exec::default() }).needs()
        };
        let size = |argument: String| {
            let exec = Exec { command: vec![argument], ..Exec::default() };
            let id = ActionId::parse(&"x".repeat(MAX_ACTION_ID)).unwrap();
            serde_json::to_vec(&Action { id, request: Request::Exec(exec) }).unwrap().len()
        };
        assert_eq!(needs("x".into()), Some(Capability::Exec));
        for (character, length) in [("x", 1 << 20), ("\u{1}", 200_000), ("x", 2 << 20)] {
            assert_eq!(needs(character.repeat(length)), Some(Capability::LargeExec));
        }
        // What is not large fits into what such an agent reads.
        for (character, length) in [("x", 1_040_000), ("\u{1}", 173_000), ("\u{1}", 131_072)] {
            let argument = character.repeat(length);
            assert_eq!(needs(argument.clone()), Some(Capability::Exec));
            assert!(size(argument) <= crate::limits::MAX_SMALL_ACTION);
        }
        assert!(size("\u{1}".repeat(2 << 20)) <= crate::limits::MAX_ACTION);
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
        let json = r#"{"id":"x","type":"fly","path":"","command":null,"tty":false,"port":22}"#;
        let action: Action = serde_json::from_str(json).unwrap();
        assert_eq!(action.request, Request::Unknown { name: "fly".into() });
    }

    #[test]
    fn an_extended_type_without_its_options_is_of_another_version() {
        let json = r#"{"id":"x","type":"dial","path":"","command":null,"tty":false}"#;
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
