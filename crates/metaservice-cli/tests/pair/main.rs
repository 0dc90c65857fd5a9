//! A real agent and a real service, on one machine, over real sockets: what the two say to each
//! other, and what becomes of it when their connections are cut.
#![allow(clippy::unwrap_used, missing_docs)]

mod commands;
mod files;
mod log;
mod session;
mod state;

/// The agent under test.
const AGENT: &str = env!("METASERVICE_AGENT");
