//! Runs a job in a virtual machine, with one handle from its description to its clean-up.
//!
//! This crate joins a service, a network card and a machine, which run one command together. It
//! does not parse flags or use a terminal. It works on Linux only.
//!
//! ```text
//!   JobSpec ──check──► Job ──find the image──► Plan ──launch──► Sandbox ──► Report
//!   plain data         checked                 image,            owns all,   the outcome
//!                      values                  hardware          reports     of the job
//!                                                                Events
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | [`spec`] | the description: plain data, as JSON |
//! | [`job`] | the checked description; limits, variables, artifacts |
//! | [`machine`] | the plan of a machine, its image, its snapshots |
//! | [`life`] | every decision in a job's life, without I/O |
//! | [`copy`] | copies between the host and a guest, as `docker cp` |
//! | [`output`] | the destinations of output on the host |
//! | [`history`] | the directory of jobs, where each process of the user finds them |
//! | [`control`] | the control sockets, by which clients find jobs |
//! | [`api`] | one socket for all jobs of a user |
//!
//! Most callers begin with [`Sandbox::builder`]. [`Launcher`] is for callers who make the
//! [`job::Job`] and the [`machine::Plan`] themselves. It can also serve a machine that another
//! program starts.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod agent;
pub mod api;
mod attempt;
mod blocking;
mod builder;
mod collect;
pub mod control;
pub mod copy;
mod copy_in;
mod driver;
pub mod event;
pub mod exit;
mod force;
pub mod history;
pub mod job;
mod launch;
pub mod life;
mod listing;
pub mod machine;
mod network;
pub mod output;
mod place;
mod progress;
mod report;
mod sandbox;
mod socket;
pub mod spec;
mod watch;

pub use agent::{AGENT, PLATFORM};
pub use builder::{Builder, Prepared, StartError};
pub use collect::CollectError;
pub use copy_in::{CopyInError, CopyProgress};
pub use event::Event;
pub use launch::{LaunchError, Launcher, OpenJob};
pub use listing::{ListedJob, list};
pub use metaservice_gateway::Denial;
pub use progress::ProgressError;
pub use report::Report;
pub use sandbox::{Events, Sandbox};
pub use watch::JobsWatch;
