//! One job.

use std::any::Any;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use metaservice::control::{Client, ClientError, Job};
use serde::Serialize;
use serde_json::Value;

/// A job that was found.
#[derive(Debug)]
pub enum Found {
    /// It runs.
    Running(Reached),
    /// It waits for a worker.
    Waiting(Box<WaitingJob>),
    /// It has ended.
    Ended(Box<EndedJob>),
}

/// What is known of a job that waits for a worker.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct WaitingJob {
    /// The job.
    pub job: Job,
    /// Why it waits, as a clause: "all slots are taken". `None`: a worker is about to take it.
    pub why: Option<String>,
    /// Its description.
    pub spec: Value,
    /// The attempts that were lost.
    pub attempts: Vec<Attempt>,
}

impl WaitingJob {
    /// A job of which no more is known.
    #[must_use]
    pub fn of(job: Job) -> Self {
        Self { job, ..Self::default() }
    }
}

/// A client of a job that runs, and what keeps the way to it open.
#[derive(Clone)]
pub struct Reached {
    client: Client,
    attempts: Vec<Attempt>,
    /// Its name and start, if its source knows it by others than its service.
    known_as: Option<(String, u64)>,
    _way: Option<Arc<dyn Any + Send + Sync>>,
}

impl Reached {
    /// A job of this host.
    #[must_use]
    pub fn here(client: Client) -> Self {
        Self { client, attempts: Vec::new(), known_as: None, _way: None }
    }

    /// A job whose client works as long as this way exists. Its source knows it by this name and
    /// this start, in milliseconds since 1970.
    #[must_use]
    pub fn by(
        client: Client,
        way: Arc<dyn Any + Send + Sync>,
        name: String,
        started_ms: u64,
    ) -> Self {
        let (attempts, known_as) = (Vec::new(), Some((name, started_ms)));
        Self { client, attempts, known_as, _way: Some(way) }
    }

    /// The same job, with its attempts. The last of them runs.
    #[must_use]
    pub fn with_attempts(self, attempts: Vec<Attempt>) -> Self {
        Self { attempts, ..self }
    }

    /// Its attempts, if there can be several.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The job, as its source knows it. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&self) -> Result<Job, ClientError> {
        self.client.job().await.map(|job| self.named(job))
    }

    /// As [`job`](Self::job), when the guest has fetched the command. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wait_for_start(&self) -> Result<Job, ClientError> {
        self.client.wait_for_start().await.map(|job| self.named(job))
    }

    fn named(&self, mut job: Job) -> Job {
        if let Some((name, started_ms)) = &self.known_as {
            (job.name, job.started_ms) = (name.clone(), *started_ms);
        }
        job
    }
}

impl Deref for Reached {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::fmt::Debug for Reached {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Reached").field(&self.client).finish()
    }
}

/// What is known of a job that has ended.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct EndedJob {
    /// The job.
    pub job: Job,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// How it ended, as its history or its queue has it.
    pub end: Option<String>,
    /// Why it has no result, or its log is not complete.
    pub error: Option<String>,
    /// The last lines of the machine's console, if they are kept.
    pub console: Vec<String>,
    /// What it left.
    pub artifacts: Vec<Artifact>,
    /// Its description.
    pub spec: Value,
    /// Its attempts, if there can be several.
    pub attempts: Vec<Attempt>,
    /// The attempt that this is about, by its number. 0: there was none, or there is only one.
    pub attempt: u32,
    /// Its directory, if it is a job of this host.
    pub directory: Option<PathBuf>,
    /// What its guest has tried to connect to, as lines of JSON. `None`: nothing is kept.
    pub network: Option<File>,
}

impl EndedJob {
    /// A job of which no more is known.
    #[must_use]
    pub fn of(job: Job) -> Self {
        Self { job, ..Self::default() }
    }
}

/// An artifact of a job that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its path in the guest.
    pub path: String,
    /// Where it is on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Its length, if it was fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it was not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The name by which the page can fetch it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An attempt to run a job of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// The worker.
    pub worker: String,
    /// When it began, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// An image of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its size, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}
