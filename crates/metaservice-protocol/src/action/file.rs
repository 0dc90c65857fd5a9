//! read and write: files and directories out of the guest and into it, as a
//! [`transfer`](crate::transfer).

use serde::{Deserialize, Serialize};

use super::ActionId;

/// The content of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The bytes of a plain file.
    File,
    /// A tar archive of a directory, or of one file or link.
    Archive,
    /// For read only: [`File`](Self::File) if the path is a plain file, else
    /// [`Archive`](Self::Archive).
    Any,
}

/// read: a file or a directory out of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The path in the guest.
    pub path: String,
    /// Form, range, compression and resumption.
    pub options: ReadOptions,
}

/// The options of a [`Read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadOptions {
    /// The wanted form.
    pub form: Form,
    /// The offset of the first wanted byte of a file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// The maximum number of bytes of a file. `None`: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Whether the agent may compress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Whether to follow a symbolic link at the end of the path. `None`, and each agent that does
    /// not know this option: follow it for [`File`](Form::File) and [`Any`](Form::Any) only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// The name of a directory in its archive, in place of `./`: one path component. An agent that
    /// does not know this option uses `./`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Continue an earlier reply that was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The place at which a cut [`transfer`](crate::transfer) continues.
///
/// The sender starts again at `cursor` and skips `skip` bytes. If their digest is not `digest`,
/// the content has changed, and the sender fails with
/// [`FailureCode::Changed`](crate::FailureCode::Changed).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The cursor of the last mark; the sender alone understands it. Empty: the beginning.
    #[serde(default)]
    pub cursor: String,
    /// Number of bytes received since that mark.
    #[serde(default)]
    pub skip: u64,
    /// XXH64 (seed 0) of the bytes received since that mark.
    pub digest: u64,
}

/// The attributes of the file or archive that a read or write transfers: the value of
/// [`FILE_HEADER`](crate::header::FILE_HEADER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileHead {
    /// Whether the bytes are a file's or an archive's. Never [`Form::Any`].
    pub form: Form,
    /// The size of the whole file in bytes, when it was opened. `None` for an archive, and for a
    /// file that the kernel generates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The permission bits.
    pub mode: u32,
    /// The modification time, in nanoseconds since 1970.
    #[serde(default)]
    pub mtime_ns: i64,
    /// Whether the archive holds one symbolic link and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link: bool,
}

impl FileHead {
    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a header value; `None` if it is invalid.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        let head: Self = serde_json::from_str(value).ok()?;
        (head.form != Form::Any).then_some(head)
    }
}

/// write: a file or a directory into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The path in the guest.
    pub path: String,
    /// Form, name and attributes.
    pub options: WriteOptions,
}

/// The options of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteOptions {
    /// Whether the stream carries a file's bytes or a tar archive.
    pub form: Form,
    /// The id of the transfer. A later write with the same id continues this one after a cut.
    pub transfer: ActionId,
    /// If `path` is an existing directory, write to this name in it: one path component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The permission bits of a file. The default is 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The modification time of a file, in nanoseconds since 1970. The default is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// Whether an archive's members keep their set-user-id and set-group-id bits. An agent that
    /// does not know this option keeps none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_id: bool,
}

/// The first line that the agent sends on stdout of the stream of a [`Write`] or an
/// [`Attach`](crate::Attach).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFrom {
    /// Number of bytes of the transfer, or of the command's standard input, that the agent has from
    /// earlier streams: the host sends the bytes from here.
    pub from: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_header_is_read_as_it_was_written() {
        let head =
            FileHead { form: Form::Archive, size: None, mode: 0o755, mtime_ns: -1, link: true };
        assert_eq!(FileHead::from_header(&head.to_header()), Some(head));
    }

    #[test]
    fn a_file_header_says_which_form_it_has() {
        assert_eq!(FileHead::from_header(r#"{"form":"any","mode":420}"#), None);
        assert_eq!(FileHead::from_header("x"), None);
    }
}
