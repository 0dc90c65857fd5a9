//! The job: its command, its session, its log and its end.

mod ending;
mod log;
mod renewal;
mod session;
mod volume;

pub use ending::{Ending, Reason};
pub use log::{LogOutput, LogPlace};
pub use renewal::Renewal;
pub use session::SessionGrant;
pub use volume::{Volume, VolumeMode};

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::action::TerminalSize;

/// The command that the guest must run: the answer of
/// [`Endpoint::Execute`](crate::Endpoint::Execute).
///
/// ```
/// use metaservice_protocol::Execute;
///
/// let execute: Execute = serde_json::from_str(r#"{"env":{},"command":["make"]}"#).unwrap();
/// assert_eq!(execute.command, ["make"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// Variables that are added to the guest's environment; they win.
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: BTreeMap<String, String>,
    /// The command and its arguments. An old peer may send `null` for an empty one.
    #[serde(default, deserialize_with = "null_is_default")]
    pub command: Vec<String>,
    /// Extension: give the command a terminal of this size. An agent that does not know this field
    /// runs the command without a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Extension: the command's working directory, in place of the guest's configured one. A
    /// relative one starts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Extension: the command's user, in place of the guest's configured one: `NAME`, `UID`,
    /// `NAME:GROUP` or `UID:GID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Extension: the guest's host name, if the agent may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Extension: the words in front of the command, in place of the guest's configured ones. Empty
    /// is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Extension: the host feeds the command's standard input, by [`Attach`](crate::Attach). An
    /// agent that does not know this field gives the command `/dev/null`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// Extension: deliver stdout and stderr as two logs. Only an agent that has announced
    /// [`Capability::Streams`](crate::Capability::Streams) gets this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub separate: bool,
    /// Extension: directories of the host to mount before the command starts, in this order. An
    /// agent that does not know this field runs the command without them, so a service ends the
    /// job of such an agent instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Extension: the command waits for a [`Start`](crate::ActionKind::Start) action.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

impl Execute {
    /// Whether both are the same job. How its log is delivered makes no other job: a host and an
    /// agent of other versions may continue it.
    #[must_use]
    pub fn is_same_job(&self, other: &Self) -> bool {
        let merged = |execute: &Self| Self { separate: false, ..execute.clone() };
        merged(self) == merged(other)
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_null_is_empty() {
        let execute: Execute = serde_json::from_str(r#"{"env":{"A":"1"},"command":null}"#).unwrap();
        assert_eq!(execute.command, Vec::<String>::new());
        assert_eq!(execute.env["A"], "1");
    }

    #[test]
    fn a_peer_of_version_1_sees_no_member_that_is_not_used() {
        let json = serde_json::to_string(&Execute::default()).unwrap();
        assert_eq!(json, r#"{"env":{},"command":[]}"#);
        let entrypoint = Execute { entrypoint: Some(Vec::new()), ..Execute::default() };
        let json = serde_json::to_string(&entrypoint).unwrap();
        assert_eq!(json, r#"{"env":{},"command":[],"entrypoint":[]}"#);
        assert_eq!(serde_json::from_str::<Execute>(&json).unwrap(), entrypoint);
        let with = serde_json::to_string(&Execute { stdin: true, ..Execute::default() }).unwrap();
        assert_eq!(with, r#"{"env":{},"command":[],"stdin":true}"#);
    }

    #[test]
    fn the_delivery_of_the_log_makes_no_other_job() {
        let merged = Execute { command: vec!["a".to_owned()], ..Execute::default() };
        let separate = Execute { separate: true, ..merged.clone() };
        assert!(serde_json::to_string(&separate).unwrap().ends_with(r#","separate":true}"#));
        assert!(separate.is_same_job(&merged));
        assert!(!separate.is_same_job(&Execute { separate: true, ..Execute::default() }));
    }
}
