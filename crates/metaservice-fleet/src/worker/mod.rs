//! A worker: claims jobs, and runs each in a machine of its own.
//!
//! | module | owns |
//! | --- | --- |
//! | `turn` | the loop: what arrives, what is due, who runs |
//! | `decide` | what to claim, to stop and to give back, without I/O or clock |
//! | `attempt` | one attempt, from the claim to its last step |
//! | `machines` | what the command runs in: sandboxes, or what a library user gave |
//! | `runner` | what a library user gives to run jobs in something else |
//! | `stock` | which machines wait for jobs, without I/O or clock |
//! | `pool` | starts and ends the machines that wait |
//! | `identity` | that no other worker has its name |
//! | `idle` | why the worker takes no job, without I/O |
//! | `disk` | what is free on the disk, as the kernel measures it |
//! | `memory` | what processes take of the host's memory, and what is left |
//! | `backlog` | what of a log is written and not sent yet, without I/O |
//! | `output` | the log of an attempt on its way to the queue, over a file |
//! | `files` | the artifacts of an attempt on their way to the queue |
//! | `tidy` | removes what a guest has left on the host |
//! | `unused` | removes the directories of workers that do not come back |
//! | `types` | options, events and errors |
//! | `events` | where the events go: a channel, and metrics |
//! | `chain` | errors as one line |
//! | `simulation` | many workers, clients and servers from a seed: a test |
//! | `guarded` | an attempt whose fault ends only itself |
//! | `group` | a cgroup for each attempt, with its share of the processors |
//! | `host` | what the host has for the requirements of jobs |

mod attempt;
mod backlog;
mod chain;
mod decide;
mod disk;
mod events;
mod files;
mod group;
mod guarded;
mod host;
mod identity;
pub(crate) mod idle;
mod machines;
mod memory;
mod output;
mod pool;
mod runner;
#[cfg(test)]
mod simulation;
mod stock;
mod tidy;
mod turn;
pub(crate) mod types;
mod unused;

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::events::Events;
pub use self::group::{Groups, GroupsError};
pub use self::host::host_features;
pub use self::runner::{Run, RunError, Runner, Running};
use self::types::attempts;
pub use self::types::{Event, Options, Summary, Warm, WorkerError};
pub use self::unused::remove_unused;
use crate::queue::Queue;

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
    events: impl Into<Events>,
) -> Result<Summary, WorkerError> {
    work(queue, options, None, drain, events.into()).await
}

/// Works as [`run`] does, but runs the jobs in something else than machines of this host. There are
/// no warm machines, and no connections to a running job.
///
/// ```no_run
/// use metaservice_fleet::worker::{self, Run, RunError, Runner, Running};
/// use tokio::io::AsyncWriteExt;
///
/// #[derive(Debug)]
/// struct Echo;
///
/// impl Runner for Echo {
///     fn run(&self, mut run: Run) -> Running {
///         Box::pin(async move {
///             let line = format!("{:?}\n", run.spec.command);
///             let written = run.stdout.write_all(line.as_bytes()).await;
///             written.map(|()| 0).map_err(|error| RunError::Machine(error.to_string()))
///         })
///     }
/// }
/// # async fn example(queue: metaservice_fleet::queue::Queue, options: worker::Options) {
/// let (events, _reports) = tokio::sync::mpsc::unbounded_channel();
/// # let drain = tokio_util::sync::CancellationToken::new();
/// let summary = worker::run_in(queue, options, Echo, drain, events).await;
/// # }
/// ```
///
/// Cancellation: its runs are dropped. The queue gives their jobs to other workers after the lease.
///
/// # Errors
/// As [`run`].
pub async fn run_in(
    queue: Queue,
    options: Options,
    runner: impl Runner,
    drain: CancellationToken,
    events: impl Into<Events>,
) -> Result<Summary, WorkerError> {
    let options = Options { warm: Vec::new(), ..options };
    work(queue, options, Some(Arc::new(runner)), drain, events.into()).await
}

async fn work(
    queue: Queue,
    options: Options,
    runner: Option<Arc<dyn Runner>>,
    drain: CancellationToken,
    events: Events,
) -> Result<Summary, WorkerError> {
    let _lock = claim_directory(&options.directory)?;
    if let Some(groups) = &options.groups {
        groups.remove_left();
    }
    turn::Worker::start(queue, options, runner, drain, events).await?.run().await
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
    // No attempt has a directory of another: what cannot be removed is in the way of none.
    if let Err(error) = tidy::remove(&attempts(directory)) {
        tracing::warn!(%error, path = %directory.display(), "files of earlier jobs are left");
    }
    Ok(lock)
}
