//! Connections to a running job, over the queue's connection: workers listen on no port.
//!
//! ```text
//!   control::Client ──socket──► Portal ──ms.open.ID.ATTEMPT.NAME──► Door ──socket──► job
//!                                      ◄───────── inbox ──────────
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | `frame` | the messages, as bytes |
//! | `flow` | numbers and windows of a connection, without I/O or clock |
//! | `pump` | one connection: a stream of this host and messages |
//! | `nats` | messages over NATS |
//! | `subject` | the subjects, and which of them are allowed |
//! | `door` | the worker's end |
//! | `portal` | the client's end |

mod door;
pub mod flow;
pub mod frame;
mod nats;
mod portal;
mod pump;
mod subject;

pub use door::{Door, MAX_CONNECTIONS};
pub use portal::{Portal, PortalError};
#[cfg(feature = "fuzzing")]
pub(crate) use subject::{is_inbox, name};
