//! write: a stream that brings a transfer, across several connections if need be.
//!
//! ```text
//!   stream ── bytes ─► Decoder ── content ─► Sink ── end ─► in place, exit: success
//!     │ cut                                   └─ failure ─► exit: failed, with the reason
//!     └─► kept for WRITE_RESUME_TIMEOUT ── a stream of the same transfer ─► continues at that byte
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use metaservice_private::lock;
use metaservice_protocol::limits::WRITE_RESUME_TIMEOUT;
use metaservice_protocol::shell::Stream;
use metaservice_protocol::transfer::{Decoder, Item};
use metaservice_protocol::{ActionId, Failure, FailureCode, StreamFrom, WriteOptions};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::sink::Sink;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::stream::{AgentStream, MessageReceiver, ReceiveEnd, StreamSocket, close};
use crate::diagnostics::with_causes;

/// How many transfers are written at once. Each holds a blocking thread.
const MAX_WRITES: usize = 8;

/// How often a stream is opened when connections fail.
const OPEN_ATTEMPTS: u32 = 3;

/// How many transfers are remembered after their end.
const MAX_ENDED: usize = 256;

/// The writes in progress, and the last that have ended.
#[derive(Debug)]
pub(crate) struct Writes {
    /// The user that new files belong to.
    user: Option<String>,
    known: Mutex<VecDeque<(ActionId, Arc<KnownWrite>)>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct KnownWrite {
    transfer: AsyncMutex<Transfer>,
    /// The number of the latest stream. An older one stops.
    latest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Transfer {
    decoder: Decoder,
    /// How many encoded bytes the streams have brought.
    consumed: u64,
    /// Decoded bytes that the sink has not taken yet.
    pending: Option<Bytes>,
    target: Option<WriteTarget>,
    /// The outcome, for a host that has not received it.
    outcome: Option<Result<(), Failure>>,
}

#[derive(Debug)]
struct WriteTarget {
    sink: Sink,
    _permit: OwnedSemaphorePermit,
}

impl Writes {
    pub(crate) fn new(user: Option<String>) -> Self {
        Self { user, known: Mutex::default(), permits: Arc::new(Semaphore::new(MAX_WRITES)) }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(ActionId, Arc<KnownWrite>)>> {
        lock(&self.known)
    }

    fn known(&self, id: &ActionId) -> Option<Arc<KnownWrite>> {
        let known = self.lock();
        let found = known.iter().find(|(known, _)| known == id);
        found.map(|(_, write)| Arc::clone(write))
    }

    /// The write with the transfer id of the options. A new one is started if there is none.
    async fn find(&self, path: PathBuf, options: WriteOptions) -> Result<Arc<KnownWrite>, Failure> {
        let id = options.transfer.clone();
        if let Some(write) = self.known(&id) {
            return Ok(write);
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(Failure::new(FailureCode::Other, "too many writes are in progress"));
        };
        let sink = Sink::open(path, options, self.user.clone()).await?;
        let transfer = Transfer {
            decoder: Decoder::new(),
            consumed: 0,
            pending: None,
            target: Some(WriteTarget { sink, _permit: permit }),
            outcome: None,
        };
        let (transfer, latest) = (AsyncMutex::new(transfer), watch::Sender::new(0));
        let write = Arc::new(KnownWrite { transfer, latest });
        let mut known = self.lock();
        if known.len() >= MAX_ENDED + MAX_WRITES {
            known.pop_front();
        }
        known.push_back((id, Arc::clone(&write)));
        Ok(write)
    }

    fn forget(&self, write: &Arc<KnownWrite>) {
        self.lock().retain(|(_, known)| !Arc::ptr_eq(known, write));
    }

    /// Serves a write action.
    ///
    /// Returns when the transfer is over, or when its stream was cut and no other stream has
    /// continued it in time. Dropping the future forgets the transfer.
    pub(crate) async fn serve(
        &self,
        client: &Client,
        id: &ActionId,
        path: PathBuf,
        options: WriteOptions,
    ) -> Result<(), ClientError> {
        let write = match self.find(path, options).await {
            Ok(write) => write,
            Err(failure) => return client.reply_failure(id, &failure).await,
        };
        let mut latest = write.latest.subscribe();
        write.latest.send_modify(|number| *number += 1);
        let own = *latest.borrow_and_update();
        let mut forget = ForgetOnDrop { writes: self, write: &write, active: true };
        let superseded = async {
            // The sender lives as long as `write`.
            let _ = latest.wait_for(|number| *number != own).await;
        };
        tokio::select! {
            (carried, ended) = carry_stream(client, id, &write) => {
                // An ended transfer is remembered: its host may not have received the outcome.
                forget.active = !ended;
                carried
            }
            () = superseded => {
                forget.active = false;
                Ok(())
            }
        }
    }
}

/// Opens a stream and carries the transfer on it. After a cut, waits for another stream. Returns
/// the outcome of the stream, and whether the transfer has ended.
async fn carry_stream(
    client: &Client,
    id: &ActionId,
    write: &KnownWrite,
) -> (Result<(), ClientError>, bool) {
    let mut transfer = write.transfer.lock().await;
    let carried = match open(client, id).await {
        Ok(socket) => {
            transfer.carry(socket).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    let ended = transfer.outcome.is_some();
    // If the host rejects the first stream, it has dropped the action and does not continue.
    let rejected = carried.as_ref().is_err_and(|error| !error.is_transport());
    let dropped = rejected && transfer.consumed == 0;
    drop(transfer);
    if !ended && !dropped {
        sleep(WRITE_RESUME_TIMEOUT).await;
    }
    (carried, ended)
}

/// Opens the stream. It tries again if the connection failed before the host can have seen it,
/// because the host waits for the stream.
async fn open(client: &Client, id: &ActionId) -> Result<StreamSocket, ClientError> {
    let mut backoff = Backoff::new();
    for _ in 1..OPEN_ATTEMPTS {
        match client.stream(id).await {
            Err(error) if error.is_transport() => tokio::time::sleep(backoff.delay()).await,
            outcome => return outcome,
        }
    }
    client.stream(id).await
}

/// Forgets a transfer, and removes its incomplete file.
struct ForgetOnDrop<'a> {
    writes: &'a Writes,
    write: &'a Arc<KnownWrite>,
    active: bool,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        if self.active {
            self.writes.forget(self.write);
        }
    }
}

impl Transfer {
    /// Takes the bytes of one stream, to the end of the transfer or to a cut.
    async fn carry(&mut self, socket: StreamSocket) {
        let (stream, sink, source) = socket.split();
        let ignore = |_| {};
        let mut receiver = MessageReceiver::new(source, &stream, &ignore);
        let mut sending = pin!(stream.send(sink));
        stream.finish(Stream::Stderr);
        let mut line = serde_json::to_vec(&StreamFrom { from: self.consumed }).unwrap_or_default();
        line.push(b'\n');
        stream.room(Stream::Stdout).await;
        stream.write(Stream::Stdout, line.into());
        let outcome = {
            let mut taking = pin!(self.take(&stream));
            tokio::select! {
                outcome = &mut taking => outcome,
                // After an abort there is no other stream; after a cut there may be one.
                end = receiver.run() => (end == ReceiveEnd::Aborted)
                    .then(|| Err(Failure::new(FailureCode::Other, "aborted"))),
                () = &mut sending => None,
            }
        };
        let Some(outcome) = outcome else { return };
        match &outcome {
            Ok(()) => stream.exit(true, &[]),
            Err(failure) => stream.fail(failure),
        }
        // Ends the sink's thread, and removes a file that is not in its place.
        self.target = None;
        self.outcome = Some(outcome);
        close(sending, &mut receiver).await;
    }

    /// Takes blocks until the transfer is over; `None` if the host ends the stream before that.
    /// Cancel-safe.
    async fn take(&mut self, stream: &AgentStream) -> Option<Result<(), Failure>> {
        if let Some(outcome) = &self.outcome {
            return Some(outcome.clone());
        }
        loop {
            if let Some(outcome) = self.hand_over().await {
                return Some(outcome);
            }
            // No await between reading and counting: what is acknowledged is counted.
            let block = stream.read().await?;
            self.consumed += block.len() as u64;
            self.decoder.push(block);
        }
    }

    /// Hands decoded bytes to the sink. Returns the outcome at the end of the transfer.
    async fn hand_over(&mut self) -> Option<Result<(), Failure>> {
        let Some(WriteTarget { sink, .. }) = &mut self.target else {
            return Some(Err(Failure::new(FailureCode::Other, "the writing has ended")));
        };
        loop {
            if self.pending.is_some()
                && let Err(failure) = sink.push(&mut self.pending).await
            {
                return Some(Err(failure));
            }
            match self.decoder.next() {
                Ok(None) if self.decoder.is_over() => return Some(sink.finish().await),
                Ok(None) => return None,
                Ok(Some(Item::Data(data))) => self.pending = Some(data),
                // The next round finishes the sink. That can be cancelled and repeated.
                Ok(Some(Item::End)) => {}
                Ok(Some(Item::Failed(failure))) => return Some(Err(failure)),
                Err(error) => {
                    return Some(Err(Failure::new(FailureCode::Corrupt, with_causes(&error))));
                }
            }
        }
    }
}
