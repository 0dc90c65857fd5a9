//! The guest protocol, version 1, as plain data.
//!
//! This crate is the whole contract between a guest and the metadata service that
//! it reaches at `http://169.254.169.254`. It owns the payloads ([`Execute`],
//! [`Action`], [`Files`], [`ErrorBody`]), the error codes, the end-points, every
//! limit and timing, and the shell stream (its frames, its flow control and the
//! [`shell::Session`] state machine that both ends run).
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

mod action;
mod ending;
mod error;
mod payload;

pub use action::{Action, ActionId, InvalidActionId, Request};
pub use ending::{Ending, Reason};
pub use endpoint::Endpoint;
pub use error::{ErrorBody, ErrorCode};
pub use payload::{Execute, Files};
