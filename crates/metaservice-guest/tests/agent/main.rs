//! The real agent, with a strict version 1 host.
#![allow(clippy::unwrap_used, missing_docs)]

mod actions;
mod job;
mod restart;
mod shell;

/// The program under test.
const AGENT: &str = env!("CARGO_BIN_EXE_metaservice-guest");
