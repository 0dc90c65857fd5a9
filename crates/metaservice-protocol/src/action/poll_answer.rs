//! The answer of a poll: an action, or none.

use serde::{Deserialize, Serialize};

use super::id::ActionId;
use super::json::ActionJson;
use super::table::{ActionKind, ActionRequest};

/// The name of the type that means 'no action'.
const NONE: &str = "none";

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

impl From<ActionJson> for PollAnswer {
    fn from(json: ActionJson) -> Self {
        let (id, name) = (json.id.clone(), json.name.clone());
        if name == NONE {
            return Self::None { id };
        }
        let kind = ActionKind::from_name(&name);
        match kind.and_then(|kind| ActionRequest::from_json(kind, json)) {
            Some(request) => Self::Action(Action { id, request }),
            None => Self::Unknown { id, name },
        }
    }
}

impl From<PollAnswer> for ActionJson {
    fn from(answer: PollAnswer) -> Self {
        match answer {
            PollAnswer::None { id } => Self::new(id, NONE),
            PollAnswer::Unknown { id, name } => Self::new(id, name),
            PollAnswer::Action(Action { id, request }) => {
                let mut json = Self::new(id, request.description().name);
                request.write(&mut json);
                json
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::action::{
        Attach, Dial, Exec, ExecOptions, Form, List, ListOptions, Read, ReadOptions, Resume,
        Signal, StartOptions, StatsOptions, TerminalSize, Write, WriteOptions,
    };

    fn exec() -> impl Strategy<Value = Exec> {
        let size = any::<Option<(u16, u16)>>();
        (vec(any::<String>(), 0..4), any::<bool>(), any::<Option<String>>(), size, any::<bool>())
            .prop_map(|(command, tty, user, size, detach)| {
                let size = size.map(|(columns, rows)| TerminalSize { columns, rows });
                let options = ExecOptions { user, size, detach, ..ExecOptions::default() };
                Exec { command, tty, options }
            })
    }

    fn read_options() -> impl Strategy<Value = ReadOptions> {
        (any::<u64>(), any::<Option<u64>>(), any::<bool>(), any::<Option<bool>>(), any::<String>())
            .prop_map(|(offset, length, compress, follow, cursor)| {
                let resume = length.map(|skip| Resume { cursor, skip, digest: offset });
                let name = follow.map(|_| "name".to_owned());
                ReadOptions { form: Form::Any, offset, length, compress, follow, name, resume }
            })
    }

    fn write_options() -> impl Strategy<Value = WriteOptions> {
        (any::<Option<String>>(), any::<Option<u32>>(), any::<Option<i64>>(), any::<bool>())
            .prop_map(|(name, mode, mtime_ns, set_id)| {
                let transfer = ActionId::parse("t1").unwrap();
                WriteOptions { form: Form::Archive, transfer, name, mode, mtime_ns, set_id }
            })
    }

    /// A request of each type: a type without a strategy does not compile.
    fn request(kind: ActionKind) -> BoxedStrategy<ActionRequest> {
        let path = any::<String>();
        match kind {
            ActionKind::GetArtifact => {
                path.prop_map(|path| ActionRequest::GetArtifact { path }).boxed()
            }
            ActionKind::ListFolder => {
                path.prop_map(|path| ActionRequest::ListFolder { path }).boxed()
            }
            ActionKind::ExecShell => (vec(path, 0..4), any::<bool>())
                .prop_map(|(command, tty)| ActionRequest::ExecShell { command, tty })
                .boxed(),
            ActionKind::KillProcess => Just(ActionRequest::KillProcess).boxed(),
            ActionKind::Exec | ActionKind::ExecDetached => {
                exec().prop_map(ActionRequest::Exec).boxed()
            }
            ActionKind::Dial => (path, any::<u16>())
                .prop_map(|(host, port)| ActionRequest::Dial(Dial { host, port }))
                .boxed(),
            ActionKind::Read => (path, read_options())
                .prop_map(|(path, options)| ActionRequest::Read(Read { path, options }))
                .boxed(),
            ActionKind::Write => (path, write_options())
                .prop_map(|(path, options)| ActionRequest::Write(Write { path, options }))
                .boxed(),
            ActionKind::List => (path, any::<bool>())
                .prop_map(|(path, recursive)| {
                    ActionRequest::List(List { path, options: ListOptions { recursive } })
                })
                .boxed(),
            ActionKind::Start => Just(ActionRequest::Start(StartOptions::default())).boxed(),
            ActionKind::Stats => any::<Option<u32>>()
                .prop_map(|interval_ms| ActionRequest::Stats(StatsOptions { interval_ms }))
                .boxed(),
            ActionKind::Attach => Just(ActionRequest::Attach(Attach {})).boxed(),
            ActionKind::Signal => {
                any::<u8>().prop_map(|signal| ActionRequest::Signal(Signal { signal })).boxed()
            }
        }
    }

    fn any_request() -> impl Strategy<Value = ActionRequest> {
        prop::sample::select(ActionKind::ALL).prop_flat_map(request)
    }

    proptest! {
        #[test]
        fn any_action_is_read_as_it_was_written(
            id in "[A-Za-z0-9._~-]{1,40}",
            request in any_request(),
        ) {
            let id = ActionId::parse(&id).unwrap();
            let answer = PollAnswer::Action(Action { id, request });
            let json = serde_json::to_vec(&answer).unwrap();
            prop_assert_eq!(serde_json::from_slice::<PollAnswer>(&json).unwrap(), answer);
        }
    }

    fn answer(json: &str) -> PollAnswer {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_five_fields_of_version_1_are_always_written() {
        let id = ActionId::parse("x").unwrap();
        let kill = Action { id: id.clone(), request: ActionRequest::KillProcess };
        for (answer, name) in
            [(PollAnswer::Action(kill), "kill-process"), (PollAnswer::None { id }, "none")]
        {
            let json =
                format!(r#"{{"id":"x","type":"{name}","path":"","command":null,"tty":false}}"#);
            assert_eq!(serde_json::to_string(&answer).unwrap(), json);
        }
    }

    #[test]
    fn an_answer_without_an_action_has_the_type_none() {
        let json = r#"{"id":"x","type":"none","path":"","command":null,"tty":false}"#;
        assert!(matches!(answer(json), PollAnswer::None { id } if id.as_str() == "x"));
    }

    #[test]
    fn the_name_of_an_unknown_type_is_kept() {
        let json = r#"{"id":"x","type":"fly","path":"","command":null,"tty":false,"port":22}"#;
        assert!(matches!(answer(json), PollAnswer::Unknown { name, .. } if name == "fly"));
    }

    #[test]
    fn an_extension_without_its_options_is_unknown() {
        let json = r#"{"id":"x","type":"dial","path":"","command":null,"tty":false}"#;
        assert!(matches!(answer(json), PollAnswer::Unknown { name, .. } if name == "dial"));
    }
}
