//! write: a stream that brings a transfer.
//!
//! ```text
//!   stream ── bytes ─► Decoder ── content ─► Sink ── end ─► in place, exit: success
//!     │ cut                                   └─ failure ─► exit: failed, with the reason
//!     └─► kept for WRITE_RESUME_TIMEOUT ── a stream of the same transfer ─► goes on at the very byte
//! ```

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use metaservice_private::lock;

use bytes::Bytes;
use futures_util::StreamExt;
use metaservice_protocol::limits::WRITE_RESUME_TIMEOUT;
use metaservice_protocol::shell::{Stream, StreamProtocol};
use metaservice_protocol::transfer::{Decoder, Item};
use metaservice_protocol::{ActionId, Failure, FailureCode, Write, WriteFrom};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::sink::Sink;
use crate::agent::Service;
use crate::backoff::Backoff;
use crate::client::ClientError;
use crate::client::stream::{Over, Reader, Socket, Wire, goodbye};
use crate::diagnostics::chain;

/// How many transfers are written at once: each holds one of the runtime's blocking threads.
const MAX_WRITES: usize = 8;

/// How often a stream is dialled when connections fail.
const DIAL_ATTEMPTS: u32 = 3;

/// How many transfers are remembered that have ended.
const MAX_ENDED: usize = 256;

/// The writes that have begun and not ended, and the last that have.
#[derive(Debug)]
pub(crate) struct Transfers {
    entries: Mutex<VecDeque<(ActionId, Arc<Entry>)>>,
    writing: Arc<Semaphore>,
}

#[derive(Debug)]
struct Entry {
    transfer: AsyncMutex<Transfer>,
    /// Counts the streams: an older one gives way.
    turn: watch::Sender<u64>,
}

#[derive(Debug)]
struct Transfer {
    decoder: Decoder,
    /// Bytes of the transfer, as it is encoded, that streams have brought.
    consumed: u64,
    /// What was decoded and not handed over when a stream was cut.
    pending: Option<Bytes>,
    writing: Option<Writing>,
    /// How it ended, for a host that did not hear of it.
    ended: Option<Result<(), Failure>>,
}

#[derive(Debug)]
struct Writing {
    sink: Sink,
    _permit: OwnedSemaphorePermit,
}

impl Default for Transfers {
    fn default() -> Self {
        Self { entries: Mutex::default(), writing: Arc::new(Semaphore::new(MAX_WRITES)) }
    }
}

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(ActionId, Arc<Entry>)>> {
        lock(&self.entries)
    }

    fn known(&self, id: &ActionId) -> Option<Arc<Entry>> {
        let entries = self.lock();
        let known = entries.iter().find(|(known, _)| known == id);
        known.map(|(_, entry)| Arc::clone(entry))
    }

    /// The transfer of this name, begun where there is none.
    async fn find(&self, service: &Service, write: Write) -> Result<Arc<Entry>, Failure> {
        let id = write.options.transfer.clone();
        if let Some(entry) = self.known(&id) {
            return Ok(entry);
        }
        let Ok(permit) = Arc::clone(&self.writing).try_acquire_owned() else {
            return Err(Failure::new(FailureCode::Other, "too many writes are under way"));
        };
        let path = service.path(&write.path);
        let sink = Sink::open(path, write.options, service.config.user.clone()).await?;
        let transfer = Transfer {
            decoder: Decoder::new(),
            consumed: 0,
            pending: None,
            writing: Some(Writing { sink, _permit: permit }),
            ended: None,
        };
        let (transfer, turn) = (AsyncMutex::new(transfer), watch::Sender::new(0));
        let entry = Arc::new(Entry { transfer, turn });
        let mut entries = self.lock();
        if entries.len() >= MAX_ENDED + MAX_WRITES {
            entries.pop_front();
        }
        entries.push_back((id, Arc::clone(&entry)));
        Ok(entry)
    }

    fn forget(&self, entry: &Arc<Entry>) {
        self.lock().retain(|(_, known)| !Arc::ptr_eq(known, entry));
    }
}

/// Answers a write action; returns when the transfer is over, or when its stream was cut and
/// nobody has come to go on with it. Dropping the future forgets the transfer.
pub(crate) async fn write(
    service: &Service,
    id: &ActionId,
    write: Write,
) -> Result<(), ClientError> {
    let entry = match service.transfers.find(service, write).await {
        Ok(entry) => entry,
        Err(failure) => return service.client.refuse(id, &failure).await,
    };
    let mut turn = entry.turn.subscribe();
    entry.turn.send_modify(|turn| *turn += 1);
    let own = *turn.borrow_and_update();
    let mut forgetting = Forgetting { transfers: &service.transfers, entry: &entry, due: true };
    let superseded = async {
        // The sender lives in the entry.
        let _ = turn.wait_for(|turn| *turn != own).await;
    };
    let serve = async {
        let mut transfer = entry.transfer.lock().await;
        let carried = match dial(service, id).await {
            Ok((socket, protocol)) => {
                carry(socket, &Wire::new(protocol), &mut transfer).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        let ended = transfer.ended.is_some();
        // A host that refuses the stream has given the action up before anything came: nobody will
        // go on with it.
        let refused = carried.as_ref().is_err_and(|error| !error.is_transport());
        let wanted = !(ended || refused && transfer.consumed == 0);
        drop(transfer);
        if wanted {
            sleep(WRITE_RESUME_TIMEOUT).await;
        }
        (carried, ended)
    };
    tokio::select! {
        (carried, ended) = serve => {
            // One that has ended is remembered: its host may not have heard of it.
            forgetting.due = !ended;
            carried
        }
        () = superseded => {
            forgetting.due = false;
            Ok(())
        }
    }
}

/// Opens the stream, again where the connection failed before the host can have seen it: it would
/// wait for it.
async fn dial(service: &Service, id: &ActionId) -> Result<(Socket, StreamProtocol), ClientError> {
    let mut backoff = Backoff::new();
    for _ in 1..DIAL_ATTEMPTS {
        match service.client.stream(id).await {
            Err(error) if error.is_transport() => tokio::time::sleep(backoff.delay()).await,
            outcome => return outcome,
        }
    }
    service.client.stream(id).await
}

/// Forgets a transfer for which nobody waits any longer, with what it has left.
struct Forgetting<'a> {
    transfers: &'a Transfers,
    entry: &'a Arc<Entry>,
    due: bool,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        if self.due {
            self.transfers.forget(self.entry);
        }
    }
}

/// Takes what one stream brings, to its end or to the cut.
async fn carry(socket: Socket, wire: &Wire, transfer: &mut Transfer) {
    let (sink, stream) = socket.split();
    let ignore = |_| {};
    let mut reader = Reader::new(stream, wire, &ignore);
    let mut sending = pin!(wire.send(sink));
    wire.finish(Stream::Stderr);
    let from = WriteFrom { from: transfer.consumed };
    let mut line = serde_json::to_vec(&from).unwrap_or_default();
    line.push(b'\n');
    wire.room(Stream::Stdout).await;
    wire.write(Stream::Stdout, line.into());
    let outcome = {
        let mut taking = pin!(take(wire, transfer));
        tokio::select! {
            outcome = &mut taking => outcome,
            over = reader.run() => {
                // An abort is the host's last word; a cut is not.
                (over == Over::Aborted).then(|| Err(Failure::new(FailureCode::Other, "aborted")))
            }
            () = &mut sending => None,
        }
    };
    let Some(outcome) = outcome else { return };
    match &outcome {
        Ok(()) => wire.exit(true, &[]),
        Err(failure) => wire.fail(failure),
    }
    // With it go its thread, and what is not in its place.
    transfer.writing = None;
    transfer.ended = Some(outcome);
    goodbye(sending, &mut reader).await;
}

/// Takes blocks until the transfer is over; `None` when the host ends the stream before that. Can
/// be dropped at any time: nothing that was taken is lost.
async fn take(wire: &Wire, transfer: &mut Transfer) -> Option<Result<(), Failure>> {
    if let Some(ended) = &transfer.ended {
        return Some(ended.clone());
    }
    loop {
        if let Some(ended) = transfer.hand_over().await {
            return Some(ended);
        }
        // No pause between these two: what is acknowledged is what is counted.
        let block = wire.read().await?;
        transfer.consumed += block.len() as u64;
        transfer.decoder.push(block);
    }
}

impl Transfer {
    /// Hands over what has come; tells when that was the end.
    async fn hand_over(&mut self) -> Option<Result<(), Failure>> {
        let Some(Writing { sink, .. }) = &mut self.writing else {
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
                // Its time comes with the next look, as often as it takes.
                Ok(Some(Item::End)) => {}
                Ok(Some(Item::Failed(failure))) => return Some(Err(failure)),
                Err(error) => {
                    return Some(Err(Failure::new(FailureCode::Corrupt, chain(&error))));
                }
            }
        }
    }
}
