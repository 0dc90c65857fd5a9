//! Extension: what the extended actions carry besides the five fields of version 1, and what
//! is answered to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::ActionId;
use crate::limits::{MAX_ACTION, MAX_ACTION_ID, MAX_SMALL_ACTION};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u16,
    /// Rows of characters.
    pub rows: u16,
}

/// exec: a command beside the job's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The command; empty means the guest's default shell.
    pub command: Vec<String>,
    /// Whether the command gets a terminal.
    pub tty: bool,
    /// The rest.
    pub options: ExecOptions,
}

impl Exec {
    /// The most bytes of JSON that the action has beside command, environment, folder and user.
    const REST: usize = MAX_ACTION_ID + 512;

    /// The most bytes of one character as JSON.
    const ESCAPED: usize = 6;

    /// Whether the action may be too large for an agent of before
    /// [`LargeExec`](crate::Capability::LargeExec).
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.exceeds(MAX_SMALL_ACTION)
    }

    /// Whether the action is larger than any agent reads.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.exceeds(MAX_ACTION)
    }

    fn exceeds(&self, most: usize) -> bool {
        let Self { command, options, .. } = self;
        let words =
            command.iter().chain(options.env.iter().flat_map(|(name, value)| [name, value]));
        let words = words.chain(&options.workdir).chain(&options.user);
        let (count, length) =
            words.fold((0, 0), |(count, length), word| (count + 1, length + word.len()));
        // Quotes and a comma or colon for each word.
        let around = Self::REST + 3 * count;
        if around + Self::ESCAPED * length <= most {
            return false;
        }
        let json = serde_json::to_vec(&(command, options));
        json.is_ok_and(|json| json.len() + Self::REST > most)
    }
}

/// What [`Exec`] has beyond exec-shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecOptions {
    /// Laid over the job's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where to run it; by default where the job runs. A relative one refers to there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Whom to run it as: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; by default as the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The terminal's size from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// Start it, answer with its process id ([`Detached`]), and leave it alone. Its streams are
    /// `/dev/null`, and it lives no longer than the job.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
}

/// The answer to a detached [`Exec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The command's process id in the guest.
    pub pid: u32,
}

/// dial: a TCP connection from the agent to a port in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// An address, or `localhost`, which is tried as `127.0.0.1` and as `::1`.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Whether a file or a folder is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A plain file's bytes.
    File,
    /// A tar archive of a folder, or of one file or link.
    Archive,
    /// [`File`](Self::File) for a plain file, else [`Archive`](Self::Archive): only for read.
    Any,
}

/// read: a file or a folder out of the guest, as a [`transfer`](crate::transfer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Where it is in the guest.
    pub path: String,
    /// The rest.
    pub options: ReadOptions,
}

/// What [`Read`] has beyond get-artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadOptions {
    /// As what it is wanted.
    pub form: Form,
    /// Where to begin in a file, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// How much of a file is wanted at most, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Whether the guest may compress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Whether a link at the end of the path is followed. Without a word, and by an older agent, it
    /// is for [`File`](Form::File) and [`Any`](Form::Any), and not for [`Archive`](Form::Archive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Go on where an earlier reply was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far a [`transfer`](crate::transfer) has come.
///
/// The sender begins again at the place that it called `cursor`, passes over `skip` bytes, and
/// goes on if their digest is this one; else what is there has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The sender's word for a place, from its last mark; empty for the beginning.
    #[serde(default)]
    pub cursor: String,
    /// Bytes received since.
    #[serde(default)]
    pub skip: u64,
    /// XXH64 (seed 0) of the bytes received since.
    pub digest: u64,
}

/// The attributes of what a read or write carries: the value of
/// [`FILE_HEADER`](crate::endpoint::FILE_HEADER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileHead {
    /// Whether the bytes are the file's own or an archive's.
    pub form: Form,
    /// The whole file's size in bytes at the time it was opened; not known of an archive, and
    /// of files that the kernel makes up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The permission bits.
    pub mode: u32,
    /// When it was last modified, in nanoseconds since 1970.
    #[serde(default)]
    pub mtime_ns: i64,
    /// Whether the archive holds one symbolic link, and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link: bool,
}

impl FileHead {
    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a header value; `None` for one that makes no sense.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        let head: Self = serde_json::from_str(value).ok()?;
        (head.form != Form::Any).then_some(head)
    }
}

/// write: a file or a folder into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where it is to be in the guest.
    pub path: String,
    /// The rest.
    pub options: WriteOptions,
}

/// How a [`Write`] is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteOptions {
    /// Whether the stream is a file's bytes or a tar archive.
    pub form: Form,
    /// Names the transfer: a later write of the same name goes on where this one was cut.
    pub transfer: ActionId,
    /// If `path` is a folder that exists already, write to this name in it instead: one path
    /// component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A file's permission bits; by default 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970; by default now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// Whether set-user-id and set-group-id bits of an archive's members are kept; older agents keep
    /// none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_id: bool,
}

/// The first line that a guest sends on the stdout of a [`Write`]'s stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFrom {
    /// How many bytes of the transfer have been consumed by earlier streams: send from here.
    pub from: u64,
}

/// list: the entries of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The folder, or one file.
    pub path: String,
    /// The rest.
    pub options: ListOptions,
}

/// How a [`List`] is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListOptions {
    /// Also what is below its folders, each folder before what is in it. Links are not followed.
    pub recursive: bool,
}

/// What kind of thing an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A folder.
    Folder,
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
    /// Anything that this version does not know.
    #[serde(other)]
    Other,
}

/// One entry of a folder: a line of the answer to [`List`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Its path below the listed folder; the file's own name where one file was listed. Bytes
    /// that are not UTF-8 are replaced by U+FFFD.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits, set-user-id, set-group-id and sticky among them.
    pub mode: u32,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// How many names it has.
    pub links: u64,
    /// Its owner's name, where the guest knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its group's name, where the guest knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// stats: what the guest is doing, a line now and one every interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsOptions {
    /// Milliseconds between two lines, at least 100 and at most 10 000; without it there is one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
}

/// What the guest has done since it booted: a line of the answer to stats. Rates are the
/// reader's to compute, from two lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Milliseconds since the boot.
    pub uptime_ms: u64,
    /// How many processors there are.
    pub cpus: u32,
    /// Milliseconds that all processors together were busy.
    pub cpu_busy_ms: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of memory that programs can still have.
    pub memory_available: u64,
    /// Bytes read from disks.
    pub disk_read: u64,
    /// Bytes written to disks.
    pub disk_written: u64,
    /// Bytes of the root file system.
    pub root_total: u64,
    /// Bytes of it that are free.
    pub root_free: u64,
    /// Bytes received by all network cards but the loopback.
    pub network_received: u64,
    /// Bytes sent by them.
    pub network_sent: u64,
    /// How many processes there are.
    pub processes: u32,
}

/// signal: to the job's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number as on Linux, 1 to 31.
    pub signal: u8,
}
