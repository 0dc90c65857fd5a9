//! The control API: a running job, for other processes on the same host.
//!
//! It is HTTP with JSON over a unix socket that only its owner can open. [`serve`] puts it in
//! front of a [`MetaService`](crate::MetaService), [`Client`] is the other end. The room is a thin
//! layer over the handle: it decides nothing about the job.
//!
//! | request | response |
//! | --- | --- |
//! | `GET /v1/job` | [`Job`] |
//! | `GET /v1/wait` | [`Job`], when its command has ended |
//! | `GET /v1/log` | what is kept of the log, as bytes or [frames](log_frame); with `follow` to its end |
//! | `POST /v1/kill` | [`KillAnswer`], when the command was killed or the machine has ended |
//! | `POST /v1/signal` | 204 when the guest has done so |
//! | `GET /v1/attach` | a websocket that carries the stdin of the job's command |
//! | `GET /v1/exec`, `GET /v1/shell` | a websocket with the messages of a shell stream |
//! | `POST /v1/run` | a command with its stdin, to its end: a [`RunResult`], or lines of JSON |
//! | `POST /v1/commands` | an id, with which `GET /v1/exec` and `GET /v1/shell` start a command |
//! | `POST /v1/exec` | a command without streams: its process id |
//! | `GET /v1/dial` | a websocket that carries a TCP connection to a port in the guest |
//! | `GET /v1/entries`, `GET /v1/files` | a directory: entries as lines of JSON, or paths of files |
//! | `GET /v1/read`, `GET /v1/artifact`, `PUT /v1/write` | files and directories, both ways |
//! | `GET /v1/stats` | statistics of the guest, as lines of JSON |
//! | `GET /v1/net/policy`, `PUT /v1/net/policy` | a [`NetworkPolicy`]: what the guest may connect to |
//! | `GET /v1/net/log` | each attempt of the guest, as a line of JSON; with `follow` to the network's end |
//! | `POST /v1/net/publish` | a port of the guest on the host: a [`Published`] address |
//! | `GET /v1/jobs` | all jobs of a user, at the socket of [`serve_jobs`] |
//! | `GET /v1/openapi.json` | this API as an OpenAPI 3.1 document (feature `openapi`) |
//!
//! An error is JSON, `{"code", "message"}`, with a [`Code`]. If a body is not complete, the
//! connection is cut, so a complete body is a correct one; this needs HTTP/1.1. With
//! `TE: trailers`, a failed `read` ends normally and the error is in the trailer
//! [`PROBLEM_HEADER`]: check it.

mod body;
mod client;
mod client_files;
mod client_network;
mod connection;
mod error;
pub mod log_frame;
mod model;
mod network;
#[cfg(feature = "openapi")]
mod openapi;
mod paths;
mod run;
mod server;

pub use self::body::{BodyReader, LogBody, LogSegments};
pub use self::client::Client;
pub use self::client_files::{FileBody, ListRequest, ReadRequest};
pub use self::error::{ClientError, Code};
pub use self::model::{
    Described, ExecRequest, FILE_HEADER, Job, JobState, KillAnswer, Killed, MISSED_HEADER,
    PROBLEM_HEADER, Started, Written,
};
pub use self::network::{
    Network, NetworkError, NetworkHandle, NetworkLog, NetworkPolicy, Published, Publishing,
};
#[cfg(feature = "openapi")]
pub use self::openapi::openapi;
pub use self::run::{RunRequest, RunResult};
pub use self::server::description::{Description, Force, ForceReason, MachineDescription};
pub use self::server::gateway::serve_jobs;
pub use self::server::job::KILL_ORDER_TIMEOUT;
pub use self::server::jobs::Jobs;
pub use self::server::serve::serve;
