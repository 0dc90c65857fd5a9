//! The command line tool without a virtual machine.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod artifacts;
mod flags;
mod history;
mod hostile;
mod launch;
mod network;
mod operate;
mod queue;
mod serve;
mod web;

/// The program under test.
const METASERVICE: &str = env!("CARGO_BIN_EXE_metaservice");
