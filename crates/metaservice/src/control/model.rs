//! What requests and responses carry.

use std::collections::BTreeMap;

use metaservice_protocol::{AgentInfo, Ending, Exec, ExecOptions, TerminalSize};
use serde::{Deserialize, Serialize};

use crate::job::contact::Contact;

/// The header of `read` with a file's attributes: a [`FileHead`](metaservice_protocol::FileHead) as
/// JSON.
pub const FILE_HEADER: &str = metaservice_protocol::header::FILE_HEADER;

/// The header of `log` with the number of bytes before the first one that are no longer kept.
pub const MISSED_HEADER: &str = "Metaservice-Missed";

/// The trailer of `read` if its body is not complete: an error as in other responses.
pub const PROBLEM_HEADER: &str = "Metaservice-Problem";

/// The largest error in a trailer, in bytes. A client reads twice as much.
pub(super) const MAX_TRAILER: usize = 8 * 1024;

/// A job, as the API describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether clients can write to its stdin, one at a time.
    #[serde(default)]
    pub stdin: bool,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// The names of the variables in its environment; their values may be secrets.
    #[serde(default)]
    pub env: Vec<String>,
    /// Where it is in its life.
    pub state: JobState,
    /// The command's exit status, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How it ended, if the guest reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What the guest's agent has announced; absent for one of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// What the host knows of the guest's agent.
    #[serde(default)]
    pub contact: Contact,
    /// Whether the log may lack bytes: an agent of version 1 cannot say which bytes it sent.
    #[serde(default)]
    pub log_hole: bool,
    /// When the service was started, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// The process that serves it.
    pub pid: u32,
    /// What the serving process says about the job's machine.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub machine: serde_json::Value,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JobState {
    /// The guest has not fetched the command.
    #[default]
    Waiting,
    /// The guest has fetched the command and has not reported a result.
    Running,
    /// The same, and its agent is [silent](Contact::Silent).
    Unresponsive,
    /// The guest has reported success.
    Succeeded,
    /// The guest has reported failure.
    Failed,
    /// The guest has reported failure, and the machine is kept for clients.
    Kept,
    /// The process that served the job ended before the job did. The control API of a job never
    /// says it of itself.
    Lost,
    /// A state that this version does not know.
    #[serde(other)]
    Other,
}

impl Job {
    /// A job of which only the name is known, in the state [`Lost`](JobState::Lost).
    #[must_use]
    pub fn lost(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: JobState::Lost, ..Self::default() }
    }
}

/// The answer to a request to kill the command.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KillAnswer {
    /// What was killed.
    pub killed: Killed,
}

/// What was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Killed {
    /// The command, by the guest.
    Command,
    /// The machine, by the host. If another program has started it, only the service ends.
    Machine,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A command to run in addition to the job.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExecRequest {
    /// The command and its arguments; empty means the guest's default shell.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Variables on top of the job's environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; by default the job's.
    pub workdir: Option<String>,
    /// The user: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; by default the job's.
    pub user: Option<String>,
    /// The terminal's size at the start.
    pub size: Option<TerminalSize>,
}

impl From<ExecRequest> for Exec {
    fn from(request: ExecRequest) -> Self {
        let ExecRequest { command, tty, env, workdir, user, size } = request;
        Self { command, tty, options: ExecOptions { env, workdir, user, size, detach: false } }
    }
}

impl From<Exec> for ExecRequest {
    fn from(exec: Exec) -> Self {
        let Exec { command, tty, options } = exec;
        let ExecOptions { env, workdir, user, size, detach: _ } = options;
        Self { command, tty, env, workdir, user, size }
    }
}

/// The process id, in the guest, of a command without streams.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Started {
    /// The process id.
    pub pid: u32,
}

/// The id of a described command. It starts the command once.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Described {
    /// The id.
    pub id: String,
}

/// What was written to the guest.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Written {
    /// Bytes of the file or of the archive.
    pub length: u64,
}
