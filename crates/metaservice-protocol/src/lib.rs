//! The guest protocol, version 1 and our extensions of it, as plain data.
//!
//! This crate is the whole contract between a guest and the metadata service that
//! it reaches at `http://169.254.169.254`. It owns the payloads ([`Execute`],
//! [`Action`], [`Files`], [`ErrorBody`]), the error codes, the end-points, every
//! limit and timing, the shell stream (its frames, its flow control and the
//! [`shell::Session`] state machine that both ends run) and the [`transfer`] of files.
//!
//! It refuses everything else: no sockets, no clock, no async, no HTTP library.
//! Time, where a rule needs it, comes in as an argument. Decoders never panic and
//! never allocate by a number that the peer sent.
//!
//! ```
//! use metaservice_protocol::{Action, ActionId, Request};
//!
//! let action = Action {
//!     id: ActionId::parse("a1").unwrap(),
//!     request: Request::GetArtifact { path: "/etc/os-release".into() },
//! };
//! let json = serde_json::to_string(&action).unwrap();
//! assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), action);
//! ```

#![forbid(unsafe_code)]

pub mod endpoint;
pub mod limits;
pub mod shell;
pub mod transfer;

mod action;
mod announcement;
mod chunks;
mod ending;
mod error;
mod failure;
mod log;
mod options;
mod outbox;
mod payload;
mod renewal;

pub use action::{Action, ActionId, InvalidActionId, Request};
pub use announcement::{Agent, Capabilities, Capability, Service};
pub use chunks::Chunks;
pub use ending::{Ending, Reason};
pub use endpoint::Endpoint;
pub use error::{ErrorBody, ErrorCode};
pub use failure::{Failure, FailureCode};
pub use log::LogPlace;
pub use options::{
    Detached, Dial, Entry, EntryKind, Exec, ExecOptions, FileHead, Form, List, ListOptions, Read,
    ReadOptions, Resume, Signal, Stats, StatsOptions, TerminalSize, Write, WriteFrom, WriteOptions,
};
pub use outbox::Outbox;
pub use payload::{Execute, Files, SessionGrant};
pub use renewal::Renewal;
