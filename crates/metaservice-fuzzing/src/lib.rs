//! Fuzz targets: what must hold for any input of a parser or of a state machine. The crate is not
//! published.
//!
//! Each target is a module with one function, `run`, which takes bytes. It panics if they show a
//! fault. Two callers use it:
//!
//! - `tests/fuzz` runs the seeds of each target, in `fuzz/corpus`, and some thousand mutations of
//!   them, which are the same each time. This is part of `make test-fast`.
//! - `make fuzz` searches for inputs that reach new code, for as long as you want.
//!
//! | target | input |
//! | --- | --- |
//! | [`action`], [`header`], [`payload`] | JSON and headers between the guest and the host |
//! | [`archive`] | a tar stream of a guest |
//! | [`authority`], [`client_hello`], [`dns`] | what a guest sends to other hosts |
//! | [`policy`] | rules and policy files |
//! | [`nic_frame`], [`nic_gateway`] | what a guest sends to its network card |
//! | [`requests`] | a conversation of a guest with the service |
//! | [`shell_frame`], [`shell_session`], [`transfer`] | streams of a command and of a file |
//! | [`fleet_parse`], [`fleet_tunnel`], [`fleet_view`] | messages of a queue |

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a target fails by a panic")]

pub mod action;
pub mod archive;
pub mod authority;
pub mod client_hello;
pub mod dns;
pub mod fleet_parse;
pub mod fleet_tunnel;
pub mod fleet_view;
pub mod header;
pub mod nic_frame;
pub mod nic_gateway;
pub mod payload;
pub mod policy;
pub mod requests;
pub mod shell_frame;
pub mod shell_session;
pub mod transfer;
mod typed;
