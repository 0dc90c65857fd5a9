//! list, and list-folder of version 1: what a directory contains.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// list: the entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The path of a directory, or of one file.
    pub path: String,
    /// Whether to list subdirectories too.
    pub options: ListOptions,
}

/// The options of a [`List`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListOptions {
    /// List subdirectories too, each before its entries. Symbolic links are not followed.
    pub recursive: bool,
}

/// The type of a [`DirectoryEntry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    #[serde(rename = "folder")]
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
    /// A type that this version does not know.
    #[serde(other)]
    Other,
}

/// One entry of a directory: one line of the reply to [`List`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = Entry))]
pub struct DirectoryEntry {
    /// The path below the listed directory. If one file was listed, its name. Bytes that are not
    /// UTF-8 are replaced by U+FFFD.
    pub path: String,
    /// The type.
    pub kind: EntryKind,
    /// The size in bytes.
    pub size: u64,
    /// The permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// The modification time, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The user id of the owner.
    pub uid: u32,
    /// The id of the group.
    pub gid: u32,
    /// The number of hard links.
    pub links: u64,
    /// The owner's name, if the guest knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group's name, if the guest knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The reply to list-folder of version 1.
///
/// It is read as version 1's decoder reads it: member names in any case, the last of several wins,
/// `null` changes nothing, unknown members are ignored, and an array is an error.
///
/// ```
/// use metaservice_protocol::Files;
///
/// let files: Files = serde_json::from_str(r#"{"FILES":["/a"],"notFound":null}"#).unwrap();
/// assert_eq!(files.files.unwrap(), ["/a"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// The absolute paths of the plain files below the directory.
    pub files: Option<Vec<String>>,
    /// Whether the directory does not exist.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str], not_found: bool) -> Files {
        let files = names.iter().map(|name| (*name).to_owned()).collect();
        Files { files: Some(files), not_found }
    }

    #[test]
    fn files_are_read_as_version_1_reads_them() {
        for (json, expected) in [
            (r#"{"files":["/a"],"notFound":false}"#, files(&["/a"], false)),
            (r#"{"FILES":["/a"],"NotFound":true}"#, files(&["/a"], true)),
            (r#"{"files":["/a"],"Files":["/b"]}"#, files(&["/b"], false)),
            (r#"{"files":[],"notfound":null,"more":[{}]}"#, files(&[], false)),
            (r#"{"files":null}"#, Files::default()),
            (r#"{"f\u0069les":["/a"]}"#, files(&["/a"], false)),
            ("{}", Files::default()),
            ("null", Files::default()),
        ] {
            assert_eq!(serde_json::from_str(json).ok(), Some(expected), "{json}");
        }
    }

    #[test]
    fn what_version_1_refuses_is_not_a_files_payload() {
        for json in [
            r#"[["/a"],false]"#,
            "[]",
            r#"{"files":{}}"#,
            r#"{"files":"/a"}"#,
            r#"{"files":[["/a"]]}"#,
            r#"{"notFound":0}"#,
            r#""files""#,
            "{} {}",
            "",
        ] {
            assert!(serde_json::from_str::<Files>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn both_fields_of_files_are_always_written() {
        let json = serde_json::to_string(&Files { files: None, not_found: true }).unwrap();
        assert_eq!(json, r#"{"files":null,"notFound":true}"#);
    }
}
