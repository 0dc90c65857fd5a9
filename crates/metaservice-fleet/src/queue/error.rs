//! Why a call to a queue failed.

use std::io;
use std::path::PathBuf;

use async_nats::jetstream::context::{CreateObjectStoreError, CreateStreamError, PublishError};

use super::denial::Denied;
use crate::name::{JobId, Tenant, WorkerName};
use crate::request::InvalidRequest;

/// An error of the NATS client.
pub type ServerError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no connection to a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    #[error("this is no address of a queue")]
    Url(#[source] io::Error),
    /// The file of credentials cannot be used.
    #[error("cannot use the credentials of {}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No server takes the connection.
    #[error("cannot connect to the queue at {servers}: {cause}")]
    Server {
        /// The addresses of the servers, without users and passwords.
        servers: String,
        /// Why.
        cause: async_nats::ConnectError,
    },
    /// The user may not read the queue, or not create it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The server has no such stream and creates none.
    #[error("the server has no queue and cannot create it")]
    Stream(#[source] CreateStreamError),
    /// The server has no object store and creates none.
    #[error("the server has no object store and cannot create it")]
    Files(#[source] CreateObjectStoreError),
}

/// Why a step was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It has no form in JSON.
    #[error("a step has no form in JSON")]
    Form(#[source] serde_json::Error),
    /// It is too long.
    #[error("a step has {0} bytes, more than {max}", max = crate::step::MAX_STEP)]
    Size(usize),
    /// The user has no right to write it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No server confirms it.
    #[error("the queue does not confirm it")]
    Server(#[source] PublishError),
}

/// Why something cannot be read from a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such job.
    #[error("the queue has no job {0}")]
    NoJob(JobId),
    /// A later version submitted it.
    #[error("a later version of metaservice submitted the job {0}: this version cannot read it")]
    Later(JobId),
    /// The user has no right to read it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A server that was restarted has no leases. The next worker creates their bucket again.
    #[error("no worker has renewed a lease since the queue was restarted")]
    NoLeases,
    /// The server does not answer.
    #[error("the queue does not answer")]
    Server(#[source] ServerError),
    /// The log has no chunk at an offset: it was removed.
    #[error("the log has no bytes {from} to {to}: they were removed")]
    Gap {
        /// The first byte that is missing.
        from: u64,
        /// The first byte that is there again.
        to: u64,
    },
}

/// Why a job was not submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No worker could run it.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The id is another job's.
    #[error("another job has the id {0}")]
    Other(JobId),
    /// It was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a tenant may submit no more jobs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// It has as many waiting jobs as it may have.
    #[error("the tenant {tenant} may have {limit} waiting jobs: {waiting} wait, and {new} are new")]
    Full {
        /// The tenant.
        tenant: Tenant,
        /// How many may wait.
        limit: u32,
        /// How many wait.
        waiting: u32,
        /// How many would be submitted.
        new: usize,
    },
    /// The jobs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a tenant's limits were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// They have no form in JSON.
    #[error("the limits have no form in JSON")]
    Form(#[source] serde_json::Error),
    /// The user of the queue lacks the right.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No server confirms them. They may be written.
    #[error("the queue does not confirm the limits")]
    Server(#[source] PublishError),
}

/// Why a job was not cancelled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such job.
    #[error("the queue has no job {0}")]
    NoJob(JobId),
    /// Someone wrote its cancellation before the job. It counts for none, and there is one only.
    #[error("the job {0} cannot be cancelled: its cancellation is older than the job")]
    Early(JobId),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a worker was not drained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// No such worker listens.
    #[error("the queue has no worker {0}")]
    NoWorker(WorkerName),
    /// The user may not end workers.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No answer came.
    #[error("the worker does not answer")]
    Server(#[source] async_nats::RequestError),
}

/// Why jobs were not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The jobs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The user may not remove them.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The server does not remove what a job left.
    #[error("the queue does not remove it")]
    Server(#[source] ServerError),
}

/// Why an artifact was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The user may not read it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The queue has no such object.
    #[error("the queue has no object {name}")]
    Missing {
        /// Its name.
        name: String,
        /// What the server says.
        #[source]
        cause: ServerError,
    },
    /// It cannot be read to its end, or its digest is wrong.
    #[error("cannot read the object")]
    Read(#[source] io::Error),
    /// It cannot be written on this host.
    #[error("cannot write the object")]
    Write(#[source] io::Error),
}
