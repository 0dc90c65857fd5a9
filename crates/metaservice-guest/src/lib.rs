//! The agent inside the virtual machine.
//!
//! It fetches one job from the metadata service, runs it, streams its output, reports its
//! end, and answers the host's actions all the while: files, lists of files, shells, a kill. As
//! the first process of a machine it is the init as well. The protocol is version 1 of
//! `docs/protocol.md`.
//!
//! # Four programs in one
//!
//! One static file is all of these, each in a process of its own:
//!
//! | | process | lives | why it is one |
//! | --- | --- | --- | --- |
//! | [`init`] | pid 1 | as long as the machine | whatever may crash must not be pid 1 |
//! | [`run`] | the agent | as long as somebody may ask | it talks to strangers, and may be restarted |
//! | [`supervise`] | one for the job, one for each shell | as long as the command's tree | it outlives the agent, and is the parent of orphans |
//! | [`zygote`] | beside an agent that has had a shell | as long as the agent | supervisors of shells are copies of it, which takes less than to start a program |
//!
//! A command begins as a copy of its supervisor, which has one thread and may therefore be copied.
//! The agent and a supervisor share nothing but a state folder and a signal; the agent and the
//! zygote share a socket.
//!
//! # Modules
//!
//! `agent` puts together `job` (take up, follow, report), `poll` (actions) and, for each kind
//! of action, `artifact`, `folder`, `shell`, `dial`, `transfer`, `entries` and `stats`. `log` carries
//! output, `client` speaks HTTP, `wire` the websockets, `state` keeps what must outlive an agent.

#![deny(unsafe_code)]

mod actions;
mod agent;
mod backoff;
mod client;
mod config;
pub mod diagnostics;
mod files;
mod init;
mod job;
mod log;
mod program;
mod shell;
mod state;
mod supervise;
mod system;

pub use agent::{AgentError, Settings, run};
pub use client::ClientError;
pub use client::host::{Host, InvalidHost};
pub use config::{Config, ConfigError};
pub use init::init;
pub use log::{PostLogError, post_log};
pub use state::StateError;
pub use supervise::{
    InvalidOrder, KILL_GRACE, Kind, LogRoute, Order, SuperviseError, supervise, zygote,
};
pub use system::account::AccountError;
