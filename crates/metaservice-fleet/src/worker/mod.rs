//! A worker: claims jobs, and runs each in a machine of its own.
//!
//! | module | owns |
//! | --- | --- |
//! | `turn` | the loop: what arrives, what is due, who runs |
//! | `decide` | what to claim, to stop and to give back, without I/O or clock |
//! | `attempt` | one attempt, from the claim to its last step |
//! | `output` | the log of an attempt on its way to the queue |
//! | `types` | options, events and errors |
//! | `events` | where the events go: a channel, and metrics |
//! | `files` | the artifacts of an attempt on their way to the queue |

mod attempt;
mod backlog;
mod chain;
mod decide;
mod events;
mod files;
mod memory;
mod output;
mod pool;
#[cfg(test)]
mod simulation;
mod stock;
mod turn;
pub(crate) mod types;

use std::io;
use std::path::Path;

use tokio_util::sync::CancellationToken;

pub use self::events::Events;
use self::types::attempts;
pub use self::types::{Event, Options, Summary, Warm, WorkerError};
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
    let _lock = claim_directory(&options.directory)?;
    turn::Worker::start(queue, options, drain, events.into()).await?.run().await
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
