//! What a library user runs jobs in, instead of machines of this host.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;

use metaservice_sandbox::spec::JobSpec;
use tokio::io::DuplexStream;

use crate::name::JobId;

/// Runs the commands of jobs in something else than machines of this host: in containers, or in
/// nothing at all for a test of the queue.
pub trait Runner: fmt::Debug + Send + Sync + 'static {
    /// Runs the command of one attempt, and returns its exit status, as
    /// [`Finished`](crate::step::Outcome::Finished) has it.
    ///
    /// The log ends when the run has dropped both outputs. The attempt ends when the log has ended
    /// and this future completes.
    ///
    /// Cancellation: a client cancelled the job, or its lease ends. The command must end with the
    /// future: another worker may start the next attempt at once.
    fn run(&self, run: Run) -> Running;
}

/// A command that runs. It completes with the exit status.
pub type Running = Pin<Box<dyn Future<Output = Result<u8, RunError>> + Send>>;

/// One attempt.
pub struct Run {
    /// The job.
    pub id: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The description for this host. Each artifact has the path to which it is copied.
    pub spec: JobSpec,
    /// The secrets of the job, by name.
    pub secrets: BTreeMap<String, String>,
    /// The directory of the attempt's cgroup, which exists until the future has ended: what runs the
    /// command joins it.
    pub cgroup: Option<PathBuf>,
    /// Takes the standard output. It waits if the worker's disk or the queue is slow.
    pub stdout: DuplexStream,
    /// Takes the standard error.
    pub stderr: DuplexStream,
}

impl fmt::Debug for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, attempt, spec, .. } = self;
        let mut run = formatter.debug_struct("Run");
        run.field("id", id).field("attempt", attempt).field("spec", spec).finish_non_exhaustive()
    }
}

/// Why a command has no exit status. The text goes into the queue; the worker cuts it off after
/// [`MAX_MESSAGE`](crate::step::MAX_MESSAGE) bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// This worker cannot run such a job.
    #[error("{0}")]
    Refused(String),
    /// The command did not start, or what it ran in ended before it.
    #[error("{0}")]
    Machine(String),
    /// The command has ended, and left more than the worker may store. The job has no result, and
    /// is not repeated.
    #[error("the artifacts are larger than {0} bytes")]
    TooLarge(u64),
}
