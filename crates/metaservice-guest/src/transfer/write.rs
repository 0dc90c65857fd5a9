//! write: a stream that brings a transfer.
//!
//! ```text
//!   stream ── bytes ─► Decoder ── content ─► Sink ── end ─► in place, exit: success
//!     │ cut                                   └─ failure ─► exit: failed, with the reason
//!     └─► kept for WRITE_PATIENCE ── a stream of the same transfer ─► goes on at the very byte
//! ```

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use metaservice_protocol::limits::WRITE_PATIENCE;
use metaservice_protocol::shell::Stream;
use metaservice_protocol::transfer::{Decoder, Item};
use metaservice_protocol::{ActionId, Failure, FailureCode, Write, WriteFrom};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::sleep;

use super::sink::Sink;
use crate::agent::Service;
use crate::client::ClientError;
use crate::wire::{Over, Reader, Socket, Wire, goodbye};
use crate::words::chain;

/// How many transfers are kept at once: each holds one of the runtime's blocking threads.
const MAX_WRITES: usize = 8;

/// The writes that have begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Transfers(Mutex<HashMap<ActionId, Arc<Entry>>>);

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
    sink: Sink,
    /// How it ended, for a host that did not hear of it.
    ended: Option<Result<(), Failure>>,
}

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, HashMap<ActionId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transfer of this name, begun where there is none.
    async fn find(&self, service: &Service, write: Write) -> Result<Arc<Entry>, Failure> {
        let id = write.options.transfer.clone();
        if let Some(entry) = self.lock().get(&id) {
            return Ok(Arc::clone(entry));
        }
        if self.lock().len() >= MAX_WRITES {
            return Err(Failure::new(FailureCode::Other, "too many writes are under way"));
        }
        let path = service.path(&write.path);
        let sink = Sink::open(path, write.options, service.config.user.clone()).await?;
        let transfer = Transfer { decoder: Decoder::new(), consumed: 0, sink, ended: None };
        let turn = watch::Sender::new(0);
        let entry = Arc::new(Entry { transfer: AsyncMutex::new(transfer), turn });
        self.lock().insert(id, Arc::clone(&entry));
        Ok(entry)
    }

    fn forget(&self, id: &ActionId, entry: &Arc<Entry>) {
        let mut entries = self.lock();
        if entries.get(id).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            entries.remove(id);
        }
    }
}

/// Answers a write action; returns when the transfer is over, or when its stream was cut and
/// nobody has come to go on with it. Dropping the future forgets the transfer.
pub(crate) async fn write(
    service: &Service,
    id: &ActionId,
    write: Write,
) -> Result<(), ClientError> {
    let name = write.options.transfer.clone();
    let entry = match service.transfers.find(service, write).await {
        Ok(entry) => entry,
        Err(failure) => return service.client.refuse(id, &failure).await,
    };
    let _forget = Forget { transfers: &service.transfers, id: &name, entry: &entry };
    let mut turn = entry.turn.subscribe();
    entry.turn.send_modify(|turn| *turn += 1);
    let own = *turn.borrow_and_update();
    let superseded = async {
        // The sender lives in the entry.
        let _ = turn.wait_for(|turn| *turn != own).await;
    };
    let serve = async {
        let mut transfer = entry.transfer.lock().await;
        let (socket, dialect) = service.client.stream(id).await?;
        let over = carry(socket, &Wire::new(dialect), &mut transfer).await;
        drop(transfer);
        if !over {
            sleep(WRITE_PATIENCE).await;
        }
        Ok(())
    };
    tokio::select! {
        served = serve => served,
        () = superseded => Ok(()),
    }
}

/// Forgets a transfer unless another stream has taken it over.
struct Forget<'a> {
    transfers: &'a Transfers,
    id: &'a ActionId,
    entry: &'a Arc<Entry>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        // The entry, the map and this one: whoever has taken over holds one more.
        if Arc::strong_count(self.entry) <= 2 {
            self.transfers.forget(self.id, self.entry);
        }
    }
}

/// Takes what one stream brings; `false` when it was cut before the end.
async fn carry(socket: Socket, wire: &Wire, transfer: &mut Transfer) -> bool {
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
    let Some(outcome) = outcome else { return false };
    match outcome {
        Ok(()) => wire.exit(true, &[]),
        Err(failure) => wire.fail(&failure),
    }
    goodbye(sending, &mut reader).await;
    true
}

/// Takes blocks until the transfer is over; `None` when the host ends the stream before that.
async fn take(wire: &Wire, transfer: &mut Transfer) -> Option<Result<(), Failure>> {
    if let Some(ended) = &transfer.ended {
        return Some(ended.clone());
    }
    while let Some(block) = wire.read().await {
        if let Some(ended) = transfer.push(block).await {
            transfer.ended = Some(ended.clone());
            return Some(ended);
        }
    }
    None
}

impl Transfer {
    async fn push(&mut self, block: Bytes) -> Option<Result<(), Failure>> {
        self.consumed += block.len() as u64;
        self.decoder.push(block);
        loop {
            let pushed = match self.decoder.next() {
                Ok(None) => return None,
                Ok(Some(Item::Data(data))) => self.sink.push(data).await,
                Ok(Some(Item::End)) => return Some(self.sink.finish().await),
                Ok(Some(Item::Failed(failure))) => Err(failure),
                Err(error) => Err(Failure::new(FailureCode::Corrupt, chain(&error))),
            };
            if let Err(failure) = pushed {
                return Some(Err(failure));
            }
        }
    }
}
