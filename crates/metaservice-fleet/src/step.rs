//! The changes of a job. Each is one message, and never changes.
//!
//! Workers and clients of several versions share a queue. A later version may add a field that
//! others can ignore, a new kind of [outcome](Outcome), or, if no other way is left, a new kind of
//! [change](Change). A version that cannot read a change leaves the job to those that can. What is
//! added to a [request](crate::request::Request) is never ignored: a version that does not know it
//! leaves the whole job alone.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::name::{RunId, WorkerName};
use crate::request::Request;

/// The longest step as JSON, in bytes.
pub const MAX_STEP: usize = 768 * 1024;

/// The most artifacts that a result names.
pub const MAX_ARTIFACTS: usize = 1024;

/// The longest message of an exception, in bytes. The rest is cut off.
pub const MAX_MESSAGE: usize = 4096;

/// One change of a job, with who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// [`VERSION`](crate::request::VERSION). A reader ignores steps of other versions.
    pub version: u32,
    /// A random number of the writer. A writer whose message was confirmed by no one finds out by it
    /// whether the step is its own.
    pub nonce: RunId,
    /// What changes.
    pub change: Change,
}

/// What a step changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Change {
    /// A client submits the job. It is step zero, and no other.
    Submitted(Box<Request>),
    /// A worker takes the job. The number of the attempt follows from the steps before.
    Claimed {
        /// The worker.
        worker: WorkerName,
        /// Its life.
        run: RunId,
    },
    /// The worker has the result. It is final.
    Ended(#[serde(deserialize_with = "any_outcome")] Outcome),
    /// The attempt is over without a result of the command. The job waits again, if it has attempts
    /// left.
    Lost {
        /// Why.
        cause: LostCause,
        /// What the worker says of it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// A client cancels the job. A waiting job has ended; a running one is killed by its worker.
    Cancelled,
    /// The deadline of a waiting job has passed.
    Expired,
}

/// An outcome, also of a kind that this version does not know.
fn any_outcome<'de, D: Deserializer<'de>>(from: D) -> Result<Outcome, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Known(Outcome),
        Later(IgnoredAny),
    }
    Any::deserialize(from).map(|any| match any {
        Any::Known(outcome) => outcome,
        Any::Later(IgnoredAny) => Outcome::Unknown,
    })
}

/// Why an attempt has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostCause {
    /// The worker renewed its lease no more.
    Lease,
    /// The worker gave the job back. Such an attempt does not count.
    Released,
    /// The machine did not start, or ended before the command.
    Machine,
    /// The worker could not carry the log or an artifact.
    Output,
    /// The worker cannot run such a job: its image is missing, say.
    Refused,
}

/// How a job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Outcome {
    /// The command has ended.
    Finished {
        /// Its exit status, as `run` has it: 124 after the timeout, 128 and the number of a signal.
        status: u8,
        /// The length of the log in bytes.
        log: u64,
        /// The whole log, if the worker has a store for it: both outputs in one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log_object: Option<Object>,
        /// What was fetched of the guest, in the order of the description.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        artifacts: Vec<Artifact>,
    },
    /// It was cancelled.
    Cancelled,
    /// It has no result, by no fault of the command.
    Exception {
        /// The kind.
        cause: ExceptionCause,
        /// What the last worker said.
        message: String,
    },
    /// It has ended in a way that only a later version knows. No version writes this.
    Unknown,
}

/// Why a job has ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExceptionCause {
    /// Its last attempt was lost.
    Lost(LostCause),
    /// It did not start before its deadline.
    Deadline,
    /// Its artifacts are larger than its worker allows.
    Artifacts,
}

/// Something that a worker has stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its name.
    #[serde(rename = "object")]
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
    /// The address of its store. `None`: the object store of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// The SHA-256 of an object: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A file or a directory that a job left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its path in the guest.
    pub path: String,
    /// Its content. `None`: it could not be fetched.
    #[serde(flatten)]
    pub object: Option<Object>,
    /// Whether the object is a tar archive of a directory.
    #[serde(default)]
    pub is_directory: bool,
    /// Why it could not be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a worker says of itself with each renewal of its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// Its name.
    pub worker: WorkerName,
    /// Its life.
    pub run: RunId,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many it runs now.
    pub running: u32,
    /// How many machines wait for jobs.
    #[serde(default)]
    pub warm: u32,
    /// Whether it takes new jobs.
    pub state: WorkerState,
    /// Its labels.
    #[serde(default)]
    pub labels: std::collections::BTreeSet<String>,
    /// Its version of metaservice.
    pub version: String,
    /// Why it takes no job, where it is the host's fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its capacity. `None`: a worker of an earlier version does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// What a worker has for jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// The memory of all its machines together, in bytes.
    pub memory: u64,
    /// The memory of its host, in bytes.
    pub host_memory: u64,
    /// The processors of its host.
    pub processors: u32,
}

/// Whether a worker takes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It does.
    Ready,
    /// It finishes those that it has.
    Draining,
    /// It has ended.
    Gone,
    /// A state that only a later version knows. It has its lease. No version writes this.
    #[serde(other)]
    Unknown,
}
