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

mod actions;
mod artifact;
mod bounds;
mod builder;
mod cloud;
mod connection;
mod contact;
pub mod control;
mod delivery;
mod disk;
mod endpoints;
mod error;
mod extension;
mod log;
mod origin;
mod preparation;
mod queue;
mod reception;
mod replies;
mod result;
mod service;
mod session;
mod shell;
mod state;

pub use artifact::Artifact;
pub use axum::serve::Listener;
pub use bounds::Bounds;
pub use builder::{Builder, StartError};
pub use cloud::{Cloud, CloudCard, InvalidPublicKey, InvalidUserData, PublicKey, UserData};
pub use contact::{Contact, SILENCE};
pub use disk::DiskWork;
pub use error::{ActionError, ArtifactError, ListFolderError, ShellError, Stage, TransportError};
pub use extension::{Destination, Dialled, ExtensionError, Lines, Reading};
pub use log::{LogError, LogFrom, LogItem, LogReader};
pub use metaservice_protocol::{
    Agent, Capability, Ending, Entry, EntryKind, Exec, ExecOptions, Failure, FailureCode, FileHead,
    Form, Reason, Stats, TerminalSize,
};
pub use preparation::Preparation;
pub use result::JobResult;
pub use service::MetaService;
pub use session::SessionMode;
pub use shell::{Shell, ShellInput, ShellOutput};
pub use state::StateError;
