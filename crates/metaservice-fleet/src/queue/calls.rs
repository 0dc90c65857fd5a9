//! What clients and workers ask of a queue.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;

use super::connection::{JOBS, Queue};
use super::election::patiently;
use super::error::{CancelError, ConnectError, DrainError, ReadError, SubmitError, WriteError};
use super::follow::Follow;
use super::keys::{drain_subject, read_step, step_subject};
use super::reader::LogReader;
use super::watch::{LEASE_HEAD, Leases, Steps, StoredStep};
use crate::name::{JobId, RunId, WorkerName};
use crate::request::{Request, VERSION};
use crate::state::{CANCELLATION, JobState, Phase};
use crate::step::{Change, MAX_STEP, Outcome, Renewal, Step, WorkerState};
use crate::view::View;

/// How often a step is written again that no server confirmed.
const TRIES: u32 = 3;

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// The queue has a new job.
    New,
    /// The queue had this job already.
    Known,
}

/// What a cancellation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The job waited. It never starts.
    Waiting,
    /// The job runs. Its worker kills it. Or a worker of a later version ends it, whether it waits
    /// or runs.
    Running,
    /// The job had ended, or was cancelled already.
    Ended,
}

/// Who wrote a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// This call.
    Own,
    /// Another writer was first, with this step. `None`: it cannot be read.
    Other(Option<Box<Change>>),
}

impl Queue {
    /// Submits a job. The id makes it the same job: a second submission changes nothing.
    ///
    /// Cancellation: the job may be submitted or not; submit it again with the same id.
    ///
    /// # Errors
    /// When no worker could run it, another job has this id, or no server confirms it.
    pub async fn submit(&self, id: &JobId, request: &Request) -> Result<Submitted, SubmitError> {
        request.check()?;
        let change = Change::Submitted(Box::new(request.clone()));
        match self.write(id, 0, change).await? {
            Written::Own => Ok(Submitted::New),
            Written::Other(Some(change)) => match *change {
                Change::Submitted(known) if known.is_same(request) => Ok(Submitted::Known),
                _ => Err(SubmitError::Other(id.clone())),
            },
            Written::Other(None) => Err(SubmitError::Other(id.clone())),
        }
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// When there is no such job, its cancellation was there before the job, or no server confirms
    /// it.
    pub async fn cancel(&self, id: &JobId) -> Result<Cancelled, CancelError> {
        let job = self.job(id).await?.ok_or_else(|| CancelError::NoJob(id.clone()))?;
        if job.outcome().is_some() || job.is_cancelled {
            return Ok(Cancelled::Ended);
        }
        let written = self.write(id, CANCELLATION, Change::Cancelled).await?;
        // Its place among the steps decides what it found.
        let mut follow = self.follow(id).await?;
        loop {
            let job = follow.next().await?;
            match job.phase {
                Phase::Ended { outcome: Outcome::Cancelled, worker: None, .. } => {
                    return Ok(Cancelled::Waiting);
                }
                Phase::Running { .. } if job.is_cancelled => return Ok(Cancelled::Running),
                Phase::Ended { .. } if job.is_cancelled => return Ok(Cancelled::Running),
                Phase::Ended { .. } => return Ok(Cancelled::Ended),
                // A later version wrote one of its steps, and knows where it is.
                _ if job.is_cancelled => return Ok(Cancelled::Running),
                _ if written == Written::Own => {}
                _ => return Err(CancelError::Early(id.clone())),
            }
        }
    }

    /// Writes the step of a job with this number, if no one else has. A step that no server
    /// confirmed is looked up: the answer is never a guess.
    ///
    /// # Errors
    /// When no server confirms it. The step may be written then.
    pub async fn write(
        &self,
        id: &JobId,
        number: u32,
        change: Change,
    ) -> Result<Written, WriteError> {
        let nonce = RunId::random();
        let step = Step { version: VERSION, nonce: nonce.clone(), change };
        let json = Bytes::from(serde_json::to_vec(&step).map_err(WriteError::Form)?);
        if json.len() > MAX_STEP {
            return Err(WriteError::Size(json.len()));
        }
        let subject = step_subject(id, number);
        let mut tries = 0;
        loop {
            tries += 1;
            let sending =
                async { self.context().publish(subject.clone(), json.clone()).await?.await };
            let error = match self.denials().watch(&subject, sending).await? {
                Ok(_) => return Ok(Written::Own),
                Err(error) => error,
            };
            match self.step(&subject).await {
                Ok(Some(step)) if step.as_ref().is_some_and(|step| step.nonce == nonce) => {
                    return Ok(Written::Own);
                }
                Ok(Some(step)) => {
                    return Ok(Written::Other(step.map(|step| Box::new(step.change))));
                }
                Ok(None) | Err(_) if tries >= TRIES => return Err(WriteError::Server(error)),
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// The step of this subject: `None` if there is none, `Some(None)` if it cannot be read.
    async fn step(&self, subject: &str) -> Result<Option<Option<Step>>, ReadError> {
        match self.last(JOBS, subject).await? {
            Ok(message) => Ok(Some(read_step(&message.payload))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError::Server(error.into())),
        }
    }

    /// The last message of a subject, as the server answers.
    pub(super) async fn last(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Result<StreamMessage, LastRawMessageError>, ReadError> {
        let request = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let stream = self.stream(stream).await?;
        let getting = patiently(|| stream.get_last_raw_message_by_subject(subject));
        Ok(self.denials().watch(&request, getting).await?)
    }

    /// A job as it is now.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobState>, ReadError> {
        match self.follow(id).await?.next().await {
            Ok(job) => Ok(Some(job)),
            Err(ReadError::NoJob(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Follows a job.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn follow(&self, id: &JobId) -> Result<Follow, ReadError> {
        Follow::open(self, id).await
    }

    /// All steps, from the first to those to come.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn steps(&self) -> Result<Steps, ReadError> {
        Steps::open(self, "$KV.ms_jobs.job.>".to_owned()).await
    }

    /// The last renewal of each worker, and those to come.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn leases(&self) -> Result<Leases, ReadError> {
        Leases::open(self).await
    }

    /// The workers that have not ended, by their names, each with the time since its last renewal by
    /// the server's clock. After [`LEASE`](crate::view::LEASE), it is lost.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn workers(&self) -> Result<Vec<(Renewal, Duration)>, ReadError> {
        let mut leases = match self.leases().await {
            Err(ReadError::NoLeases) => return Ok(Vec::new()),
            leases => leases?,
        };
        let mut last = BTreeMap::new();
        while !leases.is_caught_up() {
            let (stored, renewal) = leases.next().await?;
            match renewal.state {
                WorkerState::Gone => drop(last.remove(&renewal.worker)),
                _ => drop(last.insert(renewal.worker.clone(), (stored, renewal))),
            }
        }
        let age = |stored| Duration::from_millis(leases.opened().saturating_sub(stored));
        Ok(last.into_values().map(|(stored, renewal)| (renewal, age(stored))).collect())
    }

    /// All jobs and tenants as they are now.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn view(&self) -> Result<View, ReadError> {
        let mut view = View::of_client();
        let began = tokio::time::Instant::now();
        let mut steps = self.steps().await?;
        while !steps.is_caught_up() {
            let StoredStep { id, at, change } = steps.next().await?;
            view.apply(began.elapsed(), &id, at, change);
        }
        let mut limits = self.limits().await?;
        while !limits.is_caught_up() {
            let (tenant, limits) = limits.next().await?;
            view.limit(tenant, limits);
        }
        Ok(view)
    }

    /// Renews the lease of a worker. A server that was restarted gets a new bucket for it.
    pub(crate) async fn renew(&self, renewal: &Renewal) -> Result<(), WriteError> {
        let json = Bytes::from(serde_json::to_vec(renewal).map_err(WriteError::Form)?);
        let subject = format!("{LEASE_HEAD}{}", renewal.worker);
        let send = async || {
            let sending =
                async { self.context().publish(subject.clone(), json.clone()).await?.await };
            let sent = self.denials().watch(&subject, sending).await?;
            sent.map(drop).map_err(WriteError::Server)
        };
        match send().await {
            Err(WriteError::Server(error)) if error.kind() == PublishErrorKind::StreamNotFound => {
                match self.provide_leases().await {
                    Ok(()) => send().await,
                    Err(ConnectError::Denied(denied)) => Err(denied.into()),
                    Err(_) => Err(WriteError::Server(error)),
                }
            }
            sent => sent,
        }
    }

    /// Takes a lease: its first renewal. `last` is the number of the last renewal with this name in
    /// the bucket. Returns whether no other worker was first.
    pub(crate) async fn take_lease(
        &self,
        renewal: &Renewal,
        last: Option<u64>,
    ) -> Result<bool, WriteError> {
        let json = serde_json::to_vec(renewal).map_err(WriteError::Form)?;
        let subject = format!("{LEASE_HEAD}{}", renewal.worker);
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(last.unwrap_or_default()),
        );
        let sending = async {
            let subject = subject.clone();
            self.context().publish_with_headers(subject, headers, json.into()).await?.await
        };
        match self.denials().watch(&subject, sending).await? {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(WriteError::Server(error)),
        }
    }

    /// Makes a worker finish its jobs, take no others, and end.
    ///
    /// # Errors
    /// When no such worker answers.
    pub async fn drain(&self, worker: &WorkerName) -> Result<(), DrainError> {
        use async_nats::RequestErrorKind;
        let subject = drain_subject(worker);
        let asking = self.client().request(subject.clone(), Bytes::new());
        match self.denials().watch(&subject, asking).await? {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err(DrainError::NoWorker(worker.clone()))
            }
            Err(error) => Err(DrainError::Server(error)),
        }
    }

    /// The log of an attempt, from its first byte.
    ///
    /// # Errors
    /// When no server answers, or there is no such job.
    pub async fn log(&self, id: &JobId, attempt: u32) -> Result<LogReader, ReadError> {
        LogReader::open(self, id, attempt).await
    }
}
