//! The command line tool with real virtual machines.
#![allow(clippy::unwrap_used, missing_docs)]

mod adversity;
mod background;
mod bypass;
mod clients;
mod cloud;
mod copy;
mod day;
mod failures;
mod hands;
mod host;
mod images;
mod input;
mod network;
mod queue;
mod root;
mod run;
mod silence;
mod terminal;
mod verbs;
mod volumes;
mod warm;

/// The program under test.
const METASERVICE: &str = env!("CARGO_BIN_EXE_metaservice");
