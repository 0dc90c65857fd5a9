//! The metadata service of one job.
//!
//! A [`MetaService`] is two things at once. Towards the guest it is an HTTP service that
//! hands out the job's command and takes its log and its result; serve it over any
//! byte stream with [`MetaService::serve`] or [`MetaService::serve_connection`], or put
//! its [`router`](MetaService::router) into a server of your own. Towards the host it
//! is an async handle by which a worker fetches files, lists folders, opens shells and
//! kills the job while it runs.
//!
//! The protocol is version 1 of `docs/protocol.md`. This crate knows nothing of virtual
//! machines, and nothing of how a byte stream came to be.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metaservice::MetaService;
//!
//! let service = MetaService::builder(["make", "test"])
//!     .env("CI", "true")
//!     .log(tokio::io::stdout())
//!     .on_result(|result| println!("the guest is done: {}", result.success))
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
//! # Cancellation
//!
//! Every future of the handle can be dropped: a pending action is then withdrawn, and a
//! reply that was under way is cut. Dropping the last clone of a service ends its log
//! task after what was received has been written.

#![forbid(unsafe_code)]

pub mod control;
mod guest;
mod handle;
mod job;

pub use axum::serve::Listener;
pub use metaservice_protocol::{
    AgentInfo, Capability, DirectoryEntry, Ending, EntryKind, Exec, ExecOptions, Failure,
    FailureCode, FileHead, Form, Reason, Stats, TerminalSize,
};

pub use crate::guest::cloud::{
    Cloud, CloudCard, InvalidPublicKey, InvalidUserData, PublicKey, UserData,
};
pub use crate::guest::idle::Preparation;
pub use crate::handle::actions::{Destination, Dialled, ExtensionError, Lines, Reading};
pub use crate::handle::builder::{Builder, StartError};
pub use crate::handle::error::{
    ActionError, ArtifactError, ListFolderError, ShellError, Stage, TransportError,
};
pub use crate::handle::service::MetaService;
pub use crate::handle::shell::{Shell, ShellInput, ShellOutput};
pub use crate::job::artifact::Artifact;
pub use crate::job::contact::{Contact, SILENCE};
pub use crate::job::disk::DiskWork;
pub use crate::job::limits::Bounds;
pub use crate::job::log::{LogError, LogFrom, LogItem, LogReader};
pub use crate::job::persistence::StateError;
pub use crate::job::result::JobResult;
pub use crate::job::session::SessionMode;
