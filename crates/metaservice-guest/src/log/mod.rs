//! Delivery of a log to the service.
//!
//! Owns the way from the command's output to log requests. The supervisor delivers the log of a
//! job, because it holds the output. Bytes that were read and not confirmed must not be lost with
//! an agent. If the service is slow, the output's pipe fills and the command waits. A few megabytes
//! are buffered at most.
//!
//! A service that rejects the log (500, or any 4xx) would reject it again. Then the rest of the
//! output is read and discarded, so that the command is not blocked for ever. Its result is
//! reported all the same.

pub(crate) mod deliver;
mod numbered;
pub(crate) mod output;
mod plain;
pub(crate) mod post;
mod source;
