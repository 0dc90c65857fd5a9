//! A worker: claims jobs, and runs each in a machine of its own.
//!
//! | module | owns |
//! | --- | --- |
//! | `turn` | the loop: what arrives, what is due, who runs |
//! | `attempt` | one attempt, from the claim to its last step |
//! | `output` | the log of an attempt on its way to the queue |
//! | `files` | the artifacts of an attempt on their way to the queue |

mod attempt;
mod files;
mod output;
mod turn;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::name::{JobId, WorkerName};
use crate::queue::{Queue, ReadError, WriteError};
use crate::step::{LostCause, Outcome};

/// What a worker may use, and when it ends.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name. No other worker of the queue may have it.
    pub name: WorkerName,
    /// How many jobs it runs at once: at least 1.
    pub slots: u32,
    /// What it has that jobs can require.
    pub labels: BTreeSet<String>,
    /// The memory of all its machines together, in bytes.
    pub memory: u64,
    /// A directory of its own, for the outputs of jobs that run.
    pub directory: PathBuf,
    /// It ends when no job is left that it could run.
    pub once: bool,
    /// It ends after this time without a job.
    pub idle_exit: Option<Duration>,
    /// How long its jobs may go on once it ends. Those that take longer go back to the queue.
    pub drain_timeout: Duration,
}

/// What a worker reports.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// It knows the queue, and takes jobs.
    Ready,
    /// It has a job.
    Claimed {
        /// The job.
        id: JobId,
        /// The attempt, from 1.
        attempt: u32,
    },
    /// A job has its result.
    Ended {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
        /// The result.
        outcome: Outcome,
    },
    /// An attempt has no result.
    Lost {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
        /// Why.
        cause: LostCause,
        /// What went wrong.
        message: String,
    },
    /// An attempt was dropped: the job is another worker's now, or has ended.
    Dropped {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// It takes no more jobs.
    Draining,
    /// No server confirms its lease. It has ended its machines.
    Cut,
    /// A server confirms its lease again.
    Back,
    /// The queue takes no more of a log or an artifact now. The job waits.
    Full {
        /// The job.
        id: JobId,
        /// What the server says.
        reason: String,
    },
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// The attempts that it began.
    pub claimed: u64,
    /// The results that it wrote.
    pub ended: u64,
}

/// Why a worker does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Another worker of this host uses its directory.
    #[error("another worker uses {}", .0.display())]
    Directory(PathBuf),
    /// Its directory cannot be used.
    #[error("cannot use the directory {}", path.display())]
    Files {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The queue cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first renewal was not confirmed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It cannot listen for requests.
    #[error("cannot listen for requests")]
    Listen(#[source] async_nats::SubscribeError),
}

/// Works until it is drained: by the token, a request of a client, or its options.
///
/// Cancellation: its machines end. The queue gives their jobs to other workers after the lease.
///
/// # Errors
/// When the directory cannot be used, or the queue does not answer at the start.
pub async fn run(
    queue: Queue,
    options: Options,
    drain: CancellationToken,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Summary, WorkerError> {
    let _lock = claim_directory(&options.directory)?;
    turn::Worker::start(queue, options, drain, events).await?.run().await
}

/// Takes the directory, and removes what a killed worker left in it.
fn claim_directory(directory: &Path) -> Result<std::fs::File, WorkerError> {
    let failed = |cause| WorkerError::Files { path: directory.to_owned(), cause };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut open = std::fs::OpenOptions::new();
    open.create(true).truncate(false).write(true);
    let lock = open.open(directory.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(WorkerError::Directory(directory.to_owned()));
        }
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    match std::fs::remove_dir_all(attempts(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(lock),
    }
}

/// The directory of the attempts that run.
fn attempts(directory: &Path) -> PathBuf {
    directory.join("attempts")
}
