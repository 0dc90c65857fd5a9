//! The options, events and errors of a worker.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::name::{JobId, WorkerName};
use crate::queue::{ReadError, WriteError};
use crate::requirement::Features;
use crate::sealed::WorkerKey;
use crate::step::{Capacity, LostCause, Outcome};
use crate::store::Store;
use crate::worker::group::Groups;
use crate::worker::host::host_features;

/// What a worker may use, and when it ends.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name. No other worker of the queue may have it.
    pub name: WorkerName,
    /// How many jobs it runs at once: at least 1.
    pub slots: u32,
    /// Its features, for the requirements of jobs, as [`host_features`](super::host_features) says.
    pub features: Features,
    /// The memory of all its machines together, in bytes.
    pub memory: u64,
    /// The most bytes of a job's log, whatever the job allows. A job that has more is killed.
    pub max_log: u64,
    /// The most bytes of all artifacts of a job together, whatever the job allows. A job that has
    /// more ends without a result. On the disk, they take up to twice as much while they are stored.
    pub max_artifacts: u64,
    /// It takes no job while less than this is free on the file system of its directory, in bytes.
    pub min_free_disk: u64,
    /// Where artifacts and whole logs go. `None`: artifacts go to the object store of the queue.
    pub store: Option<Store>,
    /// Opens the secrets of jobs. `None`: it gives back jobs that have some.
    pub key: Option<WorkerKey>,
    /// The machines that wait for jobs.
    pub warm: Vec<Warm>,
    /// A cgroup for each attempt. `None`: machines are in the cgroup of this process.
    pub groups: Option<Groups>,
    /// A directory of its own, for the outputs of jobs that run.
    pub directory: PathBuf,
    /// It ends when no job is left that it could run.
    pub once: bool,
    /// It ends after this time without a job.
    pub idle_exit: Option<Duration>,
    /// How long its jobs may still run once it ends. Those that take longer go back to the queue.
    pub drain_timeout: Duration,
}

impl Options {
    /// The usual options: the features of this host, one job at a time, as much memory as the host
    /// has available, at most 1 GiB of each log and 16 GiB of artifacts of each job, 1 GiB of free
    /// disk, and 10 minutes to end.
    #[must_use]
    pub fn new(name: WorkerName, directory: PathBuf) -> Self {
        Self {
            name,
            slots: 1,
            features: host_features(BTreeSet::new()),
            memory: u64::MAX,
            max_log: 1 << 30,
            max_artifacts: 16 << 30,
            min_free_disk: 1 << 30,
            store: None,
            key: None,
            warm: Vec::new(),
            groups: None,
            directory,
            once: false,
            idle_exit: None,
            drain_timeout: Duration::from_secs(600),
        }
    }
}

impl Options {
    /// What the worker says that it has for jobs.
    pub(super) const fn capacity(&self) -> Capacity {
        let Features { memory: host_memory, processors, .. } = self.features;
        Capacity { memory: self.memory, host_memory, processors }
    }
}

/// Machines that a worker restores before there are jobs for them. A job takes one over if its
/// machine is the same. They take what is left of the worker's memory, as measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warm {
    /// The name of the image. `None`: the built-in guest.
    pub image: Option<String>,
    /// Bytes of memory. `None`: as many as a job has that names no number.
    pub memory: Option<u64>,
    /// The number of processors. `None`: as many as a job has that names no number.
    pub cpus: Option<u32>,
    /// How many machines wait.
    pub count: u32,
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
        /// How long the job has waited, by the server's clock: since it was submitted, its attempt
        /// before was lost, or it could start at the earliest. Whichever came last counts.
        waited: Duration,
    },
    /// The first output of a job has come.
    Output {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
        /// Since its claim was confirmed.
        after: Duration,
    },
    /// The machine of a job is being started, or was waiting.
    Started {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
        /// Whether the machine was waiting.
        warm: bool,
    },
    /// A job has its result.
    Ended {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
        /// The result.
        outcome: Outcome,
        /// Since its claim was confirmed.
        ran: Duration,
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
    /// Most servers are down. Its machines continue, and their logs and results wait on its disk.
    Down,
    /// A server confirms its lease again.
    Back,
    /// A warm machine does not start. It is tried again.
    NotWarm {
        /// The image. `None`: the built-in guest.
        image: Option<String>,
        /// What went wrong.
        message: String,
    },
    /// The queue takes no more of a log or an artifact now. The job waits.
    Full {
        /// The job.
        id: JobId,
        /// The attempt.
        attempt: u32,
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
    /// Another worker of the queue has its name, and lives.
    #[error("another worker has the name {name}: it renewed its lease {} s ago", age.as_secs())]
    Name {
        /// The name.
        name: WorkerName,
        /// The time since it renewed its lease.
        age: Duration,
    },
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

/// The directory of the attempts that run.
pub(super) fn attempts(directory: &Path) -> PathBuf {
    directory.join("attempts")
}
