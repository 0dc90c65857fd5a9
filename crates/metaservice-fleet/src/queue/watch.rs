//! Readers of buckets: what is there, and what comes. They continue by themselves after a cut.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{JOBS, LEASES, LOGS, OBJECTS, Queue, TENANTS};
use super::denial::Watcher;
use super::error::ReadError;
use super::keys::{read_step, tenant_of};
use crate::name::{JobId, Tenant};
use crate::state::{CANCELLATION, ServerTime, Stored};
use crate::step::{Change, Renewal};
use crate::tenants::TenantLimits;

/// How often a server says that it is there while nothing comes. Two such times without a word: the
/// reader begins anew.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long to wait before a reader is made again that could not be made.
const RETRY: Duration = Duration::from_millis(500);

const NONE: Duration = Duration::ZERO;

/// The messages of some subjects of a stream, in order, each once.
///
/// The client library's own ordered reader can sleep for ever after a heartbeat that it misses.
struct Messages {
    queue: Queue,
    stream: &'static str,
    subject: String,
    last: u64,
    /// The number of the last message within the reader that is open.
    count: u64,
    pending: u64,
    /// When the server opened the reader.
    opened: ServerTime,
    /// Whether a message was read that was stored since then.
    is_behind_news: bool,
    reader: Option<(Box<pull::Stream>, Watcher)>,
    failed: bool,
    /// A reader that is being opened. It is a task: a caller that has other events all the time
    /// cancels its calls, and would never see the end of an opening that is in them.
    opening: Option<AbortOnDropHandle<Result<Opened, ReadError>>>,
    connections: watch::Receiver<u64>,
}

/// A reader that is open.
struct Opened {
    reader: pull::Stream,
    /// The message behind which it begins.
    last: u64,
    /// How many messages are there.
    pending: u64,
    /// When the server opened it.
    opened: ServerTime,
    /// What it may not do.
    watcher: Watcher,
}

/// Opens a reader of what comes after this message.
async fn open(queue: &Queue, name: &str, subject: String, last: u64) -> Result<Opened, ReadError> {
    let stream = queue.stream(name).await?;
    let last = if name == LEASES { last_of_leases(queue, last).await? } else { last };
    let deliver_policy = match last {
        0 => DeliverPolicy::All,
        last => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
    };
    let config = pull::Config {
        filter_subject: subject,
        deliver_policy,
        ack_policy: AckPolicy::None,
        inactive_threshold: HEARTBEAT * 6,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let server = |error: super::error::ServerError| ReadError::Server(error);
    let subject = format!("$JS.API.CONSUMER.CREATE.{name}");
    let created = queue.denials().watch(&subject, stream.create_consumer(config)).await?;
    let consumer = match created {
        Err(error) if name == LEASES && is_missing(&error) => return Err(ReadError::NoLeases),
        created => created.map_err(|error| server(error.into()))?,
    };
    let info = consumer.cached_info();
    let (pending, opened) = (info.num_pending, server_time(info.created.unix_timestamp_nanos()));
    // The stream asks for messages by itself, and hears of no denial.
    let watcher = queue.denials().watcher(&[&format!("$JS.API.CONSUMER.MSG.NEXT.{name}.>")]);
    let reader = consumer.stream().heartbeat(HEARTBEAT).expires(HEARTBEAT * 4).messages();
    let reader = reader.await.map_err(|error| server(error.into()))?;
    Ok(Opened { reader, last, pending, opened, watcher })
}

/// The message behind which a reader of leases continues: zero after a restart of the server, which
/// begins their bucket anew.
async fn last_of_leases(queue: &Queue, last: u64) -> Result<u64, ReadError> {
    if last == 0 {
        return Ok(0);
    }
    let request = format!("$JS.API.STREAM.INFO.{LEASES}");
    let stream = queue.stream(LEASES).await?;
    let info = queue.denials().watch(&request, stream.get_info()).await?;
    // Without a bucket, none is missed.
    Ok(if info.is_ok_and(|info| info.state.last_sequence >= last) { last } else { 0 })
}

/// Whether the server has no such stream.
fn is_missing(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// The time of so many nanoseconds since 1970.
fn server_time(nanoseconds: i128) -> ServerTime {
    ServerTime::try_from(nanoseconds / 1_000_000).unwrap_or_default()
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { subject, last, .. } = self;
        formatter.debug_struct("Messages").field("subject", subject).field("last", last).finish()
    }
}

/// A message, and where the server stored it.
struct Read {
    message: Message,
    sequence: u64,
    time: ServerTime,
}

impl Messages {
    async fn open(queue: &Queue, stream: &'static str, subject: String) -> Result<Self, ReadError> {
        let (queue, connections) = (queue.clone(), queue.connections());
        let mut messages = Self {
            queue,
            stream,
            subject,
            last: 0,
            count: 0,
            pending: 0,
            opened: 0,
            is_behind_news: false,
            reader: None,
            failed: false,
            opening: None,
            connections,
        };
        messages.reopen().await?;
        Ok(messages)
    }

    /// Cancellation: the next call waits for the same reader.
    async fn reopen(&mut self) -> Result<(), ReadError> {
        let opening = match &mut self.opening {
            Some(opening) => opening,
            None => {
                self.connections.mark_unchanged();
                let queue = self.queue.clone();
                let (stream, subject, last) = (self.stream, self.subject.clone(), self.last);
                let pause = if std::mem::replace(&mut self.failed, true) { RETRY } else { NONE };
                let task = tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    open(&queue, stream, subject, last).await
                });
                self.opening.insert(AbortOnDropHandle::new(task))
            }
        };
        let opened = opening.await;
        self.opening = None;
        let Opened { reader, last, pending, opened, watcher } = match opened {
            Ok(opened) => opened?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => return std::future::pending().await,
        };
        self.reader = Some((Box::new(reader), watcher));
        (self.last, self.pending, self.opened) = (last, pending, opened);
        (self.count, self.failed, self.is_behind_news) = (0, false, false);
        Ok(())
    }

    /// Whether all messages were read that were there when the reader looked last.
    fn is_caught_up(&self) -> bool {
        self.pending == 0 || self.is_behind_news && self.replaces()
    }

    /// Whether a message replaces the one before of its subject. A server of release 2.9 then counts
    /// a message for ever that was replaced while the reader was opened. But one that was stored
    /// since then is behind all that were there.
    fn replaces(&self) -> bool {
        !matches!(self.stream, JOBS | LOGS)
    }

    /// The next message. Waits for it.
    ///
    /// Cancellation: no message is lost.
    async fn next(&mut self) -> Result<Read, ReadError> {
        loop {
            let Some((reader, watcher)) = &mut self.reader else {
                self.reopen().await?;
                continue;
            };
            let message = tokio::select! {
                message = reader.next() => message,
                denied = watcher.denied() => {
                    (self.reader, self.failed) = (None, true);
                    return Err(denied.into());
                }
                Ok(()) = self.connections.changed() => None,
            };
            let Some(Ok(message)) = message else {
                self.reader = None;
                continue;
            };
            let Ok(info) = message.info() else { continue };
            if info.consumer_sequence != self.count + 1 {
                self.reader = None;
                continue;
            }
            self.count += 1;
            self.pending = info.pending;
            if info.stream_sequence <= self.last {
                continue;
            }
            self.last = info.stream_sequence;
            let time = server_time(info.published.unix_timestamp_nanos());
            let sequence = info.stream_sequence;
            self.is_behind_news |= time >= self.opened;
            return Ok(Read { message, sequence, time });
        }
    }
}

/// A step, as the server stored it.
#[derive(Debug, Clone)]
pub struct StoredStep {
    /// The job.
    pub id: JobId,
    /// Where it is stored.
    pub at: Stored,
    /// What it changes; `None`: this version cannot read it.
    pub change: Option<Change>,
}

/// The steps of jobs, in the order in which the server stored them.
#[derive(Debug)]
pub struct Steps(Messages);

impl Steps {
    pub(super) async fn open(queue: &Queue, subject: String) -> Result<Self, ReadError> {
        Messages::open(queue, JOBS, subject).await.map(Self)
    }

    /// Whether all steps were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next step. Waits for it.
    ///
    /// Cancellation: no step is lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<StoredStep, ReadError> {
        loop {
            let Read { message, sequence, time } = self.0.next().await?;
            let step = stored_step(message.subject.as_str(), &message.payload, sequence, time);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }
}

/// The step in a message, which the server stored there. `None`: its subject is that of no step.
pub(crate) fn stored_step(
    subject: &str,
    json: &[u8],
    sequence: u64,
    time: ServerTime,
) -> Option<StoredStep> {
    let (id, number) = key(subject)?;
    let change = match number {
        // The key says it all.
        CANCELLATION => Some(Change::Cancelled),
        _ => read_step(json).map(|step| step.change),
    };
    Some(StoredStep { id, at: Stored { number, sequence, time }, change })
}

/// The job and the number of a step's subject.
fn key(subject: &str) -> Option<(JobId, u32)> {
    let (id, number) = subject.strip_prefix("$KV.ms_jobs.job.")?.split_once('.')?;
    let number = match number {
        "cancel" => CANCELLATION,
        number => number.parse().ok().filter(|number| *number != CANCELLATION)?,
    };
    Some((id.parse().ok()?, number))
}

/// What the subject of a lease begins with. The name of the worker follows.
pub(super) const LEASE_HEAD: &str = "$KV.ms_leases.lease.";

/// The lease of a worker, as the server stored it.
#[derive(Debug, Clone)]
pub(crate) struct HeldLease {
    /// The name of the worker.
    pub(crate) name: String,
    /// The number of the renewal in the bucket.
    pub(crate) sequence: u64,
    /// When it was stored.
    pub(crate) time: ServerTime,
    /// What the worker said. `None`: this version cannot read it.
    pub(crate) renewal: Option<Renewal>,
}

/// The renewals of workers.
#[derive(Debug)]
pub struct Leases(Messages);

impl Leases {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, LEASES, "$KV.ms_leases.lease.>".to_owned()).await.map(Self)
    }

    /// When the server opened the reader last, by its own clock.
    #[must_use]
    pub fn opened(&self) -> ServerTime {
        self.0.opened
    }

    /// Whether all renewals were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next renewal, and when the server stored it. Waits for it.
    ///
    /// Cancellation: no renewal is lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<(ServerTime, Renewal), ReadError> {
        loop {
            let HeldLease { time, renewal, .. } = self.next_held().await?;
            if let Some(renewal) = renewal {
                return Ok((time, renewal));
            }
        }
    }

    /// As [`next`](Self::next), also with one that this version cannot read.
    pub(crate) async fn next_held(&mut self) -> Result<HeldLease, ReadError> {
        let Read { message, sequence, time } = self.0.next().await?;
        let subject = message.subject.as_str();
        let name = subject.strip_prefix(LEASE_HEAD).unwrap_or_default().to_owned();
        let renewal = stored_renewal(subject, &message.payload);
        Ok(HeldLease { name, sequence, time, renewal })
    }
}

/// The renewal in a message, if it is one. A worker speaks for itself only.
pub(crate) fn stored_renewal(subject: &str, json: &[u8]) -> Option<Renewal> {
    let renewal: Renewal = serde_json::from_slice(json).ok()?;
    (subject == format!("{LEASE_HEAD}{}", renewal.worker)).then_some(renewal)
}

/// The limits of tenants.
#[derive(Debug)]
pub struct Limits(Messages);

impl Limits {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, TENANTS, "$KV.ms_tenants.tenant.>".to_owned()).await.map(Self)
    }

    /// Whether all limits were read that were there when the reader looked last.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// The next limits of a tenant. Waits for them.
    ///
    /// Cancellation: no limits are lost.
    ///
    /// # Errors
    /// When no server answers. The next call tries it again.
    pub async fn next(&mut self) -> Result<(Tenant, TenantLimits), ReadError> {
        loop {
            let Read { message, .. } = self.0.next().await?;
            if let Some(limits) = stored_limits(message.subject.as_str(), &message.payload) {
                return Ok(limits);
            }
        }
    }
}

/// The limits in a message, if it has some.
pub(crate) fn stored_limits(subject: &str, json: &[u8]) -> Option<(Tenant, TenantLimits)> {
    Some((tenant_of(subject)?, TenantLimits::read(json)?))
}

/// The marks of objects: each is there once its object is whole.
#[derive(Debug)]
pub(super) struct Marks(Messages);

impl Marks {
    pub(super) async fn open(queue: &Queue) -> Result<Self, ReadError> {
        Messages::open(queue, OBJECTS, "$O.ms_files.M.>".to_owned()).await.map(Self)
    }

    pub(super) const fn opened(&self) -> ServerTime {
        self.0.opened
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.0.is_caught_up()
    }

    /// Under which name the next object has its parts, if its mark can be read.
    pub(super) async fn next(&mut self) -> Result<Option<String>, ReadError> {
        let Read { message, .. } = self.0.next().await?;
        let info = serde_json::from_slice::<async_nats::jetstream::object_store::ObjectInfo>;
        Ok(info(&message.payload).ok().map(|info| info.nuid))
    }
}

/// The messages of one attempt's log.
#[derive(Debug)]
pub(crate) struct LogMessages(Messages);

impl LogMessages {
    pub(crate) async fn open(queue: &Queue, subject: &str) -> Result<Self, ReadError> {
        Messages::open(queue, LOGS, subject.to_owned()).await.map(Self)
    }

    pub(crate) async fn next(&mut self) -> Result<Bytes, ReadError> {
        self.0.next().await.map(|read| read.message.payload.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_a_job_and_a_step() {
        let (id, number) = key("$KV.ms_jobs.job.a-1.7").unwrap();
        assert_eq!((id.as_str(), number), ("a-1", 7));
        for wrong in ["", "$KV.ms_jobs.job.a", "$KV.ms_jobs.job.a.b", "$KV.ms_jobs.job.-.1"] {
            assert!(key(wrong).is_none(), "{wrong}");
        }
        assert_eq!(key("$KV.ms_jobs.job.a.cancel").unwrap().1, CANCELLATION);
        assert!(key("$KV.ms_jobs.job.a.4294967295").is_none());
        assert!(key("$KV.ms_jobs.job.a.1.2").is_none());
        assert!(key("$KV.ms_jobs.job.a.-1").is_none());
    }
}
