//! The connection to NATS: its buckets and streams.
//!
//! | on the server | subjects | content |
//! | --- | --- | --- |
//! | bucket `ms_jobs` | `job.ID.STEP` | the steps of all jobs; each key is taken once |
//! | bucket `ms_leases` | `lease.WORKER` | the last renewal of each worker |
//! | stream `ms_logs` | `ms.log.ID.ATTEMPT` | the logs, in chunks |
//! | object store `ms_files` | `ID.ATTEMPT.NUMBER` | artifacts |
//! | no stream | `ms.worker.WORKER.drain` | requests to a worker |

mod error;
mod files;
mod follow;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, object_store};
use async_nats::{ConnectOptions, ServerAddr};
use bytes::Bytes;

pub use error::{
    CancelError, ConnectError, DrainError, FetchError, ReadError, ServerError, SubmitError,
    WriteError,
};
pub use follow::Follow;
pub(crate) use watch::LogMessages;
pub use watch::{Leases, Steps, StoredStep};

use crate::log::LogReader;
use crate::name::{JobId, RunId, WorkerName};
use crate::request::{Request, VERSION};
use crate::state::{JobState, Phase};
use crate::step::{Change, MAX_STEP, Renewal, Step};
use crate::view::View;

/// The stream of the bucket of jobs.
const JOBS: &str = "KV_ms_jobs";
/// The stream of the bucket of leases.
const LEASES: &str = "KV_ms_leases";
/// The stream of logs.
const LOGS: &str = "ms_logs";
/// The object store.
const FILES: &str = "ms_files";
/// How long the server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a step is written again that no server confirmed.
const TRIES: u32 = 3;

/// Where a queue is, and with what right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The addresses of its servers, with commas between: `nats://a:4222,tls://b`.
    pub url: String,
    /// A file of credentials (`.creds`).
    pub credentials: Option<PathBuf>,
    /// A file of certificates (PEM) that sign the servers'.
    pub ca: Option<PathBuf>,
    /// The copies of each bucket and stream that this host creates: 1 to 5.
    pub replicas: usize,
}

impl Settings {
    /// The queue of this address, without credentials.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: None, ca: None, replicas: 1 }
    }
}

/// A connection to a queue. A copy is the same connection, which connects again by itself.
#[derive(Debug, Clone)]
pub struct Queue {
    client: async_nats::Client,
    context: jetstream::Context,
    connections: tokio::sync::watch::Receiver<u64>,
}

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
    /// The job runs. Its worker kills it.
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
    /// Connects, and creates what is missing on the server.
    ///
    /// # Errors
    /// When no server answers, the credentials are refused, or the server has no JetStream.
    pub async fn connect(settings: &Settings) -> Result<Self, ConnectError> {
        let addresses: Vec<ServerAddr> = settings
            .url
            .split(',')
            .map(|address| address.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(ConnectError::Url)?;
        let mut options = ConnectOptions::new()
            .name("metaservice")
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(50 << tries.min(5)).min(Duration::from_secs(1))
            });
        // The library does not use the user that an address names.
        let user =
            addresses.iter().find_map(|address| Some((address.username()?, address.password()?)));
        if let Some((user, password)) = user {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(file) = &settings.credentials {
            options = options
                .credentials_file(file)
                .await
                .map_err(|cause| ConnectError::Credentials { path: file.clone(), cause })?;
        }
        if let Some(file) = &settings.ca {
            options = options.add_root_certificates(file.clone());
        }
        let (count, connections) = tokio::sync::watch::channel(0);
        let options = options.event_callback(move |event| {
            if matches!(event, async_nats::Event::Connected) {
                count.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
        let client = options.connect(addresses).await.map_err(ConnectError::Server)?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(TIMEOUT);
        let queue = Self { client, context, connections };
        queue.create(settings.replicas).await?;
        Ok(queue)
    }

    async fn create(&self, replicas: usize) -> Result<(), ConnectError> {
        let bucket = |name: &str, subject: &str| Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            num_replicas: replicas,
            max_messages_per_subject: 1,
            ..Config::default()
        };
        let jobs = Config {
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            deny_delete: true,
            ..bucket(JOBS, "$KV.ms_jobs.>")
        };
        let logs = Config {
            discard: DiscardPolicy::New,
            max_messages_per_subject: -1,
            deny_delete: true,
            ..bucket(LOGS, "ms.log.*.*")
        };
        for config in [jobs, bucket(LEASES, "$KV.ms_leases.>"), logs] {
            self.context.get_or_create_stream(config).await.map_err(ConnectError::Stream)?;
        }
        if self.context.get_object_store(FILES).await.is_err() {
            let config = object_store::Config {
                bucket: FILES.to_owned(),
                num_replicas: replicas,
                ..object_store::Config::default()
            };
            self.context.create_object_store(config).await.map_err(ConnectError::Files)?;
        }
        Ok(())
    }

    /// Whether the connection to a server is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The number of connections so far. A reader of a stream starts anew with each: a server that
    /// was restarted does not know it.
    pub(crate) fn connections(&self) -> tokio::sync::watch::Receiver<u64> {
        self.connections.clone()
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.context
    }

    pub(crate) async fn stream(
        &self,
        name: &str,
    ) -> Result<jetstream::stream::Stream<()>, ReadError> {
        self.context.get_stream_no_info(name).await.map_err(|error| ReadError::Server(error.into()))
    }

    pub(crate) async fn logs(&self) -> Result<jetstream::stream::Stream<()>, ReadError> {
        self.stream(LOGS).await
    }

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
                Change::Submitted(known) if *known == *request => Ok(Submitted::Known),
                _ => Err(SubmitError::Other(id.clone())),
            },
            Written::Other(None) => Err(SubmitError::Other(id.clone())),
        }
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// When there is no such job, or no server confirms it.
    pub async fn cancel(&self, id: &JobId) -> Result<Cancelled, CancelError> {
        loop {
            let job = self.job(id).await?.ok_or_else(|| CancelError::NoJob(id.clone()))?;
            if job.outcome().is_some() || job.is_cancelled {
                return Ok(Cancelled::Ended);
            }
            let waits = matches!(job.phase, Phase::Waiting { .. });
            if self.write(id, job.next, Change::Cancelled).await? == Written::Own {
                return Ok(if waits { Cancelled::Waiting } else { Cancelled::Running });
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
            let sent = self.context.publish(subject.clone(), json.clone()).await;
            let error = match sent {
                Ok(confirmed) => match confirmed.await {
                    Ok(_) => return Ok(Written::Own),
                    Err(error) => error,
                },
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
        use async_nats::jetstream::stream::LastRawMessageErrorKind;
        match self.stream(JOBS).await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(read_step(&message.payload))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError::Server(error.into())),
        }
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

    /// All jobs and workers as they are now.
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
        let mut leases = self.leases().await?;
        while !leases.is_caught_up() {
            let (stored, renewal) = leases.next().await?;
            view.renewed(began.elapsed(), stored, renewal);
        }
        Ok(view)
    }

    /// Renews the lease of a worker.
    pub(crate) async fn renew(&self, renewal: &Renewal) -> Result<(), WriteError> {
        let json = serde_json::to_vec(renewal).map_err(WriteError::Form)?;
        let subject = format!("$KV.ms_leases.lease.{}", renewal.worker);
        let sent = self.context.publish(subject, json.into()).await.map_err(WriteError::Server)?;
        sent.await.map(drop).map_err(WriteError::Server)
    }

    /// Makes a worker finish its jobs, take no others, and end.
    ///
    /// # Errors
    /// When no such worker answers.
    pub async fn drain(&self, worker: &WorkerName) -> Result<(), DrainError> {
        use async_nats::RequestErrorKind;
        match self.client.request(drain_subject(worker), Bytes::new()).await {
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

pub(crate) fn drain_subject(worker: &WorkerName) -> String {
    format!("ms.worker.{worker}.drain")
}

fn step_subject(id: &JobId, number: u32) -> String {
    format!("$KV.ms_jobs.job.{id}.{number}")
}

/// A step, if this version can read it.
fn read_step(json: &[u8]) -> Option<Step> {
    let step: Step = serde_json::from_slice(json).ok()?;
    (step.version == VERSION).then_some(step)
}
