//! A running job in the hands of another process on the same host.
//!
//! HTTP with JSON over a unix socket that only its owner may open. [`serve`] puts it in
//! front of a [`MetaService`](crate::MetaService); [`Client`] is the other end. Everything here is a thin
//! layer over the service's own handle: it decides nothing.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/job` | [`Job`] |
//! | `POST /v1/kill` | 204 once the guest has killed the command |
//! | `GET /v1/files?path=P` | the plain files below folder P of the guest's, as a JSON array |
//! | `GET /v1/artifact?path=P` | the bytes of file P of the guest's |
//! | `GET /v1/shell?command=JSON&tty=BOOL` | a websocket with the messages of a guest's shell stream |
//!
//! An error is JSON, `{"code", "message"}`, with the codes of [`Code`].

mod client;
mod server;

use metaservice_protocol::Ending;
use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError};
pub use server::serve;

/// What is told of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How far it is.
    pub state: JobState,
    /// The command's exit status, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How it ended, where the guest said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The process that serves it.
    pub pid: u32,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// What went wrong, as a word that programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// The request is not one of these, or lacks something (400).
    InvalidRequest,
    /// Nothing is served at this path (404).
    NoSuchEndPoint,
    /// The guest has no such file or folder (404).
    NotFound,
    /// The guest did not do its part in time (504).
    TimedOut,
    /// The guest's connection broke (502).
    Transport,
    /// The service is ending (503).
    Terminated,
    /// The host cannot store what came (507).
    Storage,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    code: Code,
    message: String,
}
