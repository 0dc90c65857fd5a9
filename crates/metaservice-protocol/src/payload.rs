//! The JSON bodies that are neither actions nor errors.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::options::TerminalSize;

/// What the guest is to run: the answer of `GET /engine/v1/execute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// The job's environment, laid over the guest's own.
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: BTreeMap<String, String>,
    /// The command and its arguments; `null` from an old peer means empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub command: Vec<String>,
    /// Extension: give the command a terminal of this size. An agent that does not know it runs
    /// the command without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// Extension: the answer to a claim of the job.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionGrant {
    /// The value of the [`SESSION_HEADER`](crate::endpoint::SESSION_HEADER) from now on.
    pub secret: String,
    /// Variables that only the claimant gets, laid over the job's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl std::fmt::Debug for SessionGrant {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionGrant").field("env", &self.env.keys()).finish_non_exhaustive()
    }
}

/// The answer to a list-folder action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Absolute paths of the plain files below the folder; `null` when there is none to name.
    #[serde(default)]
    pub files: Option<Vec<String>>,
    /// Whether the folder does not exist.
    #[serde(rename = "notFound", default)]
    pub not_found: bool,
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
    fn execute_takes_null_for_empty() {
        let execute: Execute = serde_json::from_str(r#"{"env":{"A":"1"},"command":null}"#).unwrap();
        assert_eq!(execute.command, Vec::<String>::new());
        assert_eq!(execute.env["A"], "1");
    }

    #[test]
    fn files_always_carries_both_fields() {
        let json = serde_json::to_string(&Files { files: None, not_found: true }).unwrap();
        assert_eq!(json, r#"{"files":null,"notFound":true}"#);
    }
}
