//! A running job in the hands of another process on the same host.
//!
//! HTTP with JSON over a unix socket that only its owner may open. [`serve`] puts it in
//! front of a [`MetaService`](crate::MetaService); [`Client`] is the other end. Everything here is a thin
//! layer over the service's own handle: it decides nothing. `GET /v1/openapi.json` describes it
//! (OpenAPI 3.1, made from the code), and [`openapi`] is the same document.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/job` | [`Job`] |
//! | `GET /v1/wait` | [`Job`], once its command has ended |
//! | `GET /v1/log` | what is kept of the log, as it is; with `follow` until the job's end |
//! | `POST /v1/kill`, `POST /v1/signal` | 204 once the guest has done so |
//! | `GET /v1/exec`, `GET /v1/shell` | a websocket with the messages of a shell stream |
//! | `POST /v1/commands` | an id by which `GET /v1/exec` and `GET /v1/shell` start a command |
//! | `POST /v1/exec` | a command that is left alone: its process id |
//! | `GET /v1/dial` | a websocket that carries a TCP connection to a port in the guest |
//! | `GET /v1/entries`, `GET /v1/files` | a folder: entries as lines of JSON, or paths of its plain files |
//! | `GET /v1/read`, `GET /v1/artifact`, `PUT /v1/write` | files and folders, both ways |
//! | `GET /v1/stats` | what the guest is doing, as lines of JSON |
//!
//! An error is JSON, `{"code", "message"}`, with the codes of [`Code`]. A body that breaks off is
//! a connection that breaks off: there is no complete answer that is not right, which needs
//! HTTP/1.1. Only whoever asks to `read` with `TE: trailers` has to look behind the body: it ends in order
//! then, and an error is in the trailer [`PROBLEM_HEADER`].

mod body;
mod client;
mod openapi;
mod server;

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use metaservice_protocol::{AgentInfo, Ending, Exec, ExecOptions, FailureCode, TerminalSize};
use serde::{Deserialize, Serialize};

use crate::job::contact::Contact;

pub use body::{BodyReader, LogBody};
pub use client::{Client, ClientError};
pub use openapi::openapi;
pub use server::{Description, MachineDescription, serve};

/// The header by which `read` tells a file's attributes: a
/// [`FileHead`](metaservice_protocol::FileHead) as JSON.
pub const FILE_HEADER: &str = metaservice_protocol::header::FILE_HEADER;

/// The header by which `log` tells how many bytes before the first one are no longer kept.
pub const MISSED_HEADER: &str = "Metaservice-Missed";

/// The trailer by which `read` tells why its body is not whole: an error as it is answered else.
pub const PROBLEM_HEADER: &str = "Metaservice-Problem";

/// The largest error in a trailer; a client takes twice as much.
const MAX_TRAILER: usize = 8 * 1024;

/// What is told of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The names of the variables in its environment; their values may be secrets.
    #[serde(default)]
    pub env: Vec<String>,
    /// How far it is.
    pub state: JobState,
    /// The command's exit status, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How it ended, where the guest said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What the guest's agent has announced; absent of one of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// What is known of the guest's agent.
    #[serde(default)]
    pub contact: Contact,
    /// Whether the guest's log may lack bytes, as an agent of version 1 cannot say what it has sent.
    #[serde(default)]
    pub log_hole: bool,
    /// When the service was started, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// The process that serves it.
    pub pid: u32,
    /// What the process that serves the job says of its machine.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[schema(value_type = Object)]
    pub machine: serde_json::Value,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JobState {
    /// The guest has not fetched its command.
    Waiting,
    /// The guest has fetched its command and not reported a result.
    Running,
    /// The guest has reported success.
    Succeeded,
    /// The guest has reported failure.
    Failed,
}

/// A command to be run beside the job's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExecRequest {
    /// The command and its arguments; empty means the guest's default shell.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Laid over the job's environment.
    pub env: BTreeMap<String, String>,
    /// Where to run it; by default where the job runs.
    pub workdir: Option<String>,
    /// Whom to run it as: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`.
    pub user: Option<String>,
    /// The terminal's size from the beginning.
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

/// The process id, in the guest, of a command that was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Started {
    /// The process id.
    pub pid: u32,
}

/// The id of a command that was described: by it the command is started, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Described {
    /// The id.
    pub id: String,
}

/// What was written into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Written {
    /// Bytes of the file or of the archive.
    pub length: u64,
}

/// What went wrong, as a word that programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[non_exhaustive]
pub enum Code {
    /// The request is not one of these, or lacks something (400).
    InvalidRequest,
    /// Nothing is served at this path (404).
    NoSuchEndPoint,
    /// The path exists, not for this method (405).
    MethodNotAllowed,
    /// The guest has no such file, folder, program or user (404).
    NotFound,
    /// The guest refuses, for a reason that the message tells (409).
    Refused,
    /// The guest's agent has not announced that it can do this (501).
    Unsupported,
    /// The guest did not do its part in time (504).
    TimedOut,
    /// The guest's connection broke, or what it sent makes no sense (502).
    Transport,
    /// The service is ending (503).
    Terminated,
    /// The host, or the guest, cannot store what came (507).
    Storage,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

impl From<FailureCode> for Code {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::NotFound => Self::NotFound,
            FailureCode::Invalid => Self::InvalidRequest,
            FailureCode::NoSpace | FailureCode::ReadOnly => Self::Storage,
            FailureCode::Corrupt => Self::Transport,
            _ => Self::Refused,
        }
    }
}

/// An error, as it is answered.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
struct Problem {
    /// For programs.
    code: Code,
    /// For people.
    message: String,
}

impl Problem {
    /// What is told behind a body, if anything is. One that cannot be read tells that the body is
    /// not whole, too.
    fn of_trailers(trailers: &HeaderMap) -> Option<ClientError> {
        let value = trailers.get(PROBLEM_HEADER)?;
        Some(match serde_json::from_slice::<Self>(value.as_bytes()) {
            Ok(problem) => problem.into(),
            Err(error) => ClientError::Connection(error.into()),
        })
    }

    /// `None` where it is more than a trailer carries.
    fn to_trailers(&self) -> Option<HeaderMap> {
        let json = serde_json::to_vec(self).ok().filter(|json| json.len() <= MAX_TRAILER)?;
        let name = HeaderName::from_bytes(PROBLEM_HEADER.as_bytes()).ok()?;
        Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(&json).ok()?)]))
    }
}
