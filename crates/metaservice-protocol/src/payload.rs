//! The JSON bodies that are neither actions nor errors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
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
///
/// It is read as version 1's decoder reads it: member names in any case, the last of several
/// counts, `null` changes nothing, unknown members are ignored, and an array is no object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Absolute paths of the plain files below the folder; `null` when there is none to name.
    pub files: Option<Vec<String>>,
    /// Whether the folder does not exist.
    #[serde(rename = "notFound")]
    pub not_found: bool,
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilesVisitor)
    }
}

struct FilesVisitor;

impl<'de> Visitor<'de> for FilesVisitor {
    type Value = Files;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with files and notFound")
    }

    fn visit_unit<E>(self) -> Result<Files, E> {
        Ok(Files::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Files, A::Error> {
        let mut files = Files::default();
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if name.eq_ignore_ascii_case("files") {
                files.files = members.next_value()?;
            } else if name.eq_ignore_ascii_case("notFound") {
                files.not_found = members.next_value::<Option<bool>>()?.unwrap_or(files.not_found);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(files)
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
    fn files_are_read_as_version_1_reads_them() {
        let files = |names: &[&str], not_found| Files {
            files: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            not_found,
        };
        for (json, expected) in [
            (r#"{"files":["/a"],"notFound":false}"#, Some(files(&["/a"], false))),
            (r#"{"FILES":["/a"],"NotFound":true}"#, Some(files(&["/a"], true))),
            (r#"{"files":["/a"],"Files":["/b"]}"#, Some(files(&["/b"], false))),
            (r#"{"files":[],"notfound":null,"more":[{}]}"#, Some(files(&[], false))),
            (r#"{"files":null}"#, Some(Files::default())),
            (r#"{"f\u0069les":["/a"]}"#, Some(files(&["/a"], false))),
            ("{}", Some(Files::default())),
            ("null", Some(Files::default())),
            (r#"[["/a"],false]"#, None),
            ("[]", None),
            (r#"{"files":{}}"#, None),
            (r#"{"files":"/a"}"#, None),
            (r#"{"files":[["/a"]]}"#, None),
            (r#"{"notFound":0}"#, None),
            (r#""files""#, None),
            ("{} {}", None),
            ("", None),
        ] {
            assert_eq!(serde_json::from_str(json).ok(), expected, "{json}");
        }
    }

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
