//! The metadata service of one job.
//!
//! A [`MetaService`] has two sides. For the guest it is an HTTP service that gives out the job's
//! command, and takes its log and its result; serve it over any byte stream with
//! [`MetaService::serve`]. For the host it is an async handle: run commands in addition to the
//! job, read and write files, kill the job.
//!
//! The protocol is version 1 of `docs/protocol.md`, with extensions. This crate knows nothing about
//! virtual machines, nor where a byte stream comes from.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metaservice::MetaService;
//!
//! let service = MetaService::builder(["make", "test"])
//!     .env("CI", "true")
//!     .log(tokio::io::stdout())
//!     .on_result(|result| println!("the job has ended: {}", result.success))
//!     .start()?;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let serving = tokio::spawn(service.clone().serve(listener));
//! // ... start a guest, then: service.result().await
//! # serving.abort();
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `control`: the control API, [`control`]: a server on a unix socket, and its client.
//! - `openapi`: the control API as an OpenAPI document; implies `control`.
//! - `cloud`: cloud metadata for stock cloud images, and delivery of the agent to a guest without
//!   one.
//!
//! None is on by default.
//!
//! # Cancellation
//!
//! Every future of the handle can be dropped: a pending action is then withdrawn, and a reply that
//! is under way is cut. When the last clone of a service is dropped, its log task writes what has
//! arrived, and ends.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "control")]
pub mod control;
mod guest;
mod handle;
mod job;

pub use metaservice_protocol::{
    AgentInfo, Capability, DirectoryEntry, Ending, EntryKind, Failure, FailureCode, FileHead, Form,
    LogOutput, Reason, Stats, TerminalSize, Volume, VolumeMode,
};

#[cfg(feature = "cloud")]
pub use crate::guest::cloud::instance::{Cloud, CloudCard, InvalidPublicKey, PublicKey};
#[cfg(feature = "cloud")]
pub use crate::guest::cloud::user_data::{InvalidUserData, UserData};
pub use crate::guest::idle::IdleService;
pub use crate::guest::listener::Listener;
pub use crate::handle::attach::{AttachError, JobStdin};
pub use crate::handle::builder::{Builder, StartError};
pub use crate::handle::child::command::{Child, ExitStatus};
pub use crate::handle::child::stream::{ChildOutput, ChildStdin};
pub use crate::handle::dial::GuestStream;
pub use crate::handle::error::{
    ActionError, ChildError, ExecError, ListError, ReadError, WriteError,
};
pub use crate::handle::exec::{Command, Executor, Output, OutputTooLong};
pub use crate::handle::lines::Lines;
pub use crate::handle::list::ListRequest;
pub use crate::handle::read::{ReadRequest, Reading};
pub use crate::handle::service::MetaService;
pub use crate::handle::write::Destination;
pub use crate::job::artifact::Artifact;
pub use crate::job::contact::Contact;
pub use crate::job::disk::DiskWork;
pub use crate::job::error::TransportError;
pub use crate::job::limits::Limits;
pub use crate::job::log::{
    LogError, LogFrom, LogItem, LogReader, LogSegment, StoredLog, StoredLogWriter,
};
pub use crate::job::need::Need;
pub use crate::job::persistence::StateError;
pub use crate::job::queue::Stage;
pub use crate::job::result::JobResult;
pub use crate::job::session::SessionMode;
