//! The messages of a stream, as they are and as they come. A reader continues by itself after a cut.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{ErrorCode, Message};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{JOBS, LEASES, LOGS, Queue};
use super::denial::Watcher;
use super::election::patiently;
use super::error::ReadError;
use crate::state::ServerTime;

/// How often a server says that it is there while nothing comes. Two such times without a word: the
/// reader begins anew.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long to wait before a reader is made again that could not be made.
const RETRY: Duration = Duration::from_millis(500);

const NONE: Duration = Duration::ZERO;

/// The messages of some subjects of a stream, in order, each once.
///
/// The client library's own ordered reader can sleep for ever after a heartbeat that it misses.
pub(super) struct Messages {
    queue: Queue,
    stream: &'static str,
    subject: String,
    last: u64,
    /// The number of the last message within the reader that is open.
    count: u64,
    pending: u64,
    /// When the server opened the reader.
    pub(super) opened: ServerTime,
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
    let creating = patiently(|| stream.create_consumer(config.clone()));
    let created = queue.denials().watch(&subject, creating).await?;
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
pub(super) struct Read {
    pub(super) message: Message,
    pub(super) sequence: u64,
    pub(super) time: ServerTime,
}

impl Messages {
    pub(super) async fn open(
        queue: &Queue,
        stream: &'static str,
        subject: String,
    ) -> Result<Self, ReadError> {
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
    pub(super) fn is_caught_up(&self) -> bool {
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
    pub(super) async fn next(&mut self) -> Result<Read, ReadError> {
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
