//! The events that a running job reports.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use metaservice::{ActionError, Contact, JobResult, LogError, Need};
use metaservice_gateway::Denial;
use metaservice_qemu::{CacheNotice, Exit, StartError};
use tokio::sync::{mpsc, watch};

use crate::collect::CollectError;
use crate::control::ControlError;
use crate::copy::Content;
use crate::copy_in::{CopyInError, CopyProgress};
use crate::history::{Artifacts, HistoryError, PastArtifact};
use crate::job::{Artifact, CopyIn, OutputField, Publish};
use crate::life::{Force, KillReason, Start};
use crate::machine::snapshot::SnapshotError;

/// Something that happened to a job. [`Sandbox::events`](crate::Sandbox::events) gives them in
/// order.
///
/// Their number is bounded by the description: what a guest can repeat is reported at most
/// [`CONTACT_LIMIT`] times.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// There is no control socket: clients cannot find the job.
    NoControl(ControlError),
    /// The history of the job cannot be written. The job itself is as usual.
    NoHistory(HistoryError),
    /// The machine is being started.
    Starting,
    /// Another program starts the machine, and its guest is awaited.
    Waiting,
    /// There is something to know of a file in the cache.
    Cache(CacheNotice),
    /// A snapshot cannot be used, and the machine is booted.
    NoSnapshot(SnapshotError),
    /// A snapshot was restored, and its guest was unusable. The machine is booted.
    RestoreFailed(RestoreError),
    /// The machine runs. A restored one has fetched its command.
    MachineStarted(Start),
    /// The guest has fetched its command, which waits until this is copied.
    CopyingIn {
        /// What is copied.
        copy: CopyIn,
        /// How far it is. The sender is gone when the copy has ended.
        progress: watch::Receiver<CopyProgress>,
    },
    /// This is in the guest.
    CopiedIn {
        /// What was copied.
        copy: CopyIn,
        /// What it contains.
        content: Content,
    },
    /// The command is not started, because its files are not in place.
    NotCopiedIn(CopyInError),
    /// The guest has fetched its command, and everything that the command waits for is done.
    Started {
        /// The job's name.
        name: String,
    },
    /// The command runs without something that the job asks for, because the guest's agent cannot
    /// do it.
    Without(Vec<Need>),
    /// The host hears the guest's agent no longer, or again, or refuses it.
    Contact {
        /// What the host knew before.
        before: Contact,
        /// What it knows now.
        now: Contact,
    },
    /// The guest's policy denies this for the first time, or an allowed name does not resolve. At
    /// most 1024 of them are reported.
    Denied(Box<Denial>),
    /// A port of the host leads to a port of the guest. It is reported again if the machine is
    /// started once more.
    Published {
        /// The description.
        publish: Publish,
        /// The address of the host, with the port that was free if the description has none.
        address: SocketAddr,
    },
    /// The log may lack bytes: the connection of an agent of version 1 was cut.
    LogHole,
    /// The command is being killed.
    Killing {
        /// Why.
        reason: KillReason,
        /// Why the log cannot be written, if it is for that.
        log: Option<LogError>,
    },
    /// The guest did not kill the command.
    KillFailed(ActionError),
    /// The guest has not reported the end of a killed command in time.
    KillUnreported,
    /// The guest has not taken the order to kill the command in time. The machine is killed.
    KillNotTaken,
    /// The machine is killed by force.
    Forced(Force),
    /// The machine ended while the command was being killed.
    MachineGone {
        /// How.
        exit: Exit,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// An artifact is being fetched.
    Fetching(Artifact),
    /// An artifact is at its destination.
    Fetched {
        /// Which one.
        artifact: Artifact,
        /// Its length in bytes.
        length: u64,
    },
    /// An artifact was not fetched.
    NotFetched {
        /// Which one.
        artifact: Artifact,
        /// Why.
        error: CollectError,
    },
    /// A file has reached its limit, and gets no more bytes.
    LimitReached {
        /// Which file.
        output: OutputField,
        /// Where it is.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file cannot be written, and gets no more bytes. The job continues.
    OutputFailed {
        /// Which file.
        output: OutputField,
        /// Where it is.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The command has failed, its artifacts are fetched, and its machine is kept.
    Kept {
        /// The job's name.
        name: String,
        /// The exit status of the command.
        status: u8,
        /// For how long.
        period: Duration,
    },
    /// The command has ended, its log is complete, and its artifacts are fetched.
    Ended(JobResult),
    /// The machine is asked to power off.
    PoweringOff,
}

/// Where the events of a job go. Artifacts are noted for its history.
#[derive(Debug, Clone)]
pub(crate) struct EventSender {
    pub(crate) sender: mpsc::UnboundedSender<Event>,
    pub(crate) artifacts: Artifacts,
}

impl EventSender {
    /// Sends an event, unless the caller does not want events.
    pub(crate) fn send(&self, event: Event) {
        match &event {
            Event::Fetched { artifact, length } => self.note(artifact, Ok(*length)),
            Event::NotFetched { artifact, error } => self.note(artifact, Err(error.to_string())),
            _ => {}
        }
        let _ = self.sender.send(event);
    }

    fn note(&self, artifact: &Artifact, fetched: Result<u64, String>) {
        let (bytes, error) = match fetched {
            Ok(bytes) => (Some(bytes), None),
            Err(error) => (None, Some(error)),
        };
        let (path, to) = (artifact.source().to_owned(), artifact.destination().to_owned());
        self.artifacts.add(PastArtifact { path, to, bytes, error });
    }
}

/// How often [`Event::Contact`] is reported for one job.
pub const CONTACT_LIMIT: usize = 20;

/// Why a restored machine is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// QEMU does not restore it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It ended before its agent had the job.
    #[error("the machine ended: {}", .0.cause)]
    Ended(Exit),
    /// Its agent did not fetch the job in time.
    #[error("its agent is silent")]
    Silent,
}

impl RestoreError {
    /// Whether the snapshot itself is at fault.
    pub(crate) fn is_of_snapshot(&self) -> bool {
        matches!(self, Self::Start(StartError::Restore(_)))
    }
}
