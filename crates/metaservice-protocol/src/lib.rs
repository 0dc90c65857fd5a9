//! The guest protocol: version 1 and its extensions, as plain data.
//!
//! This crate is the contract between a guest and the metadata service that it reaches at
//! `http://169.254.169.254`. It owns
//!
//! - the [actions](ActionKind) that the host asks of a guest, in one table, and their payloads,
//! - the [job](Execute): its command, session, log and [end](Ending),
//! - the [announcements](AgentInfo) by which the two sides discover extensions,
//! - the [end-points](Endpoint), [headers](header), errors and all [limits] and timings,
//! - the [shell] stream and the [transfer] of files, as state machines that both ends run.
//!
//! It has no sockets, no clock, no tasks and no HTTP library. Where a rule needs the time, it is an
//! argument. Decoders never panic, and never allocate by a number that the peer sent.
//!
//! Payloads are plain structs that both sides build, field by field. They are not
//! `#[non_exhaustive]`: a new field must not be forgotten where one is built.
//!
//! ```
//! use metaservice_protocol::{ActionRequest, PollAnswer};
//!
//! let json = r#"{"id":"a1","type":"kill-process","path":"","command":null,"tty":false}"#;
//! let PollAnswer::Action(action) = serde_json::from_str(json)? else { panic!("no action") };
//! assert_eq!(action.request, ActionRequest::KillProcess);
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod buffer;
pub mod header;
pub mod limits;
pub mod shell;
pub mod transfer;

mod action;
mod announcement;
mod endpoint;
mod error;
mod failure;
mod job;
mod json;

// A new action needs no line here.
pub use action::*;
pub use announcement::{AgentInfo, Capabilities, Capability, ServiceInfo};
pub use endpoint::Endpoint;
pub use error::{ErrorBody, ErrorCode};
pub use failure::{Failure, FailureCode};
pub use job::{
    Ending, Execute, LogOutput, LogPlace, Reason, Renewal, SessionGrant, Volume, VolumeMode,
};
