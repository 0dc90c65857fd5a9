//! Files and archives out of the guest, across cuts.
//!
//! A [`Pump`] takes the transfer apart and takes it up again when it was cut. For a reader it is a
//! task, and what it has decoded waits in a channel of one chunk, so that a slow reader holds the
//! guest back; for temporary storage it is a part of the caller's own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use metaservice_protocol::limits::TRANSFER_ATTEMPTS;
use metaservice_protocol::transfer::{Decoder, Item};
use metaservice_protocol::{ActionRequest, FileHead, Form, Read};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use super::actions::{ExtensionError, Incoming};
use crate::MetaService;
use crate::handle::error::{ActionError, TransportError};
use crate::job::artifact::{Artifact, ReceiveError, Spool, next_chunk};

type Chunk = Result<Bytes, ExtensionError>;

/// A file or an archive on its way out of the guest. The bytes are checked as they come, and a
/// cut connection is resumed behind the last byte that came. Dropping it cuts the guest off.
///
/// ```no_run
/// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
/// use metaservice::Form;
///
/// let mut tar = service.read("/etc", Form::Archive).await?;
/// let mut file = tokio::fs::File::create("etc.tar").await?;
/// tokio::io::copy(&mut tar, &mut file).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reading {
    head: FileHead,
    chunks: mpsc::Receiver<Chunk>,
    /// What was taken from the channel and not yet read.
    rest: Bytes,
}

impl Reading {
    pub(super) async fn begin(service: &MetaService, read: Read) -> Result<Self, ExtensionError> {
        let (sender, chunks) = mpsc::channel(1);
        let (pump, incoming) = Pump::begin(service, read, sender).await?;
        let head = pump.head;
        tokio::spawn(pump.run(incoming));
        Ok(Self { head, chunks, rest: Bytes::new() })
    }

    /// Its attributes, and whether the bytes are a file's own or an archive's.
    #[must_use]
    pub const fn head(&self) -> FileHead {
        self.head
    }

    /// The next bytes, as they came; `None` once all of them have come and are right. May be
    /// dropped and called again.
    ///
    /// # Errors
    /// [`ExtensionError`]; what came before is of no worth where the whole is needed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExtensionError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        self.chunks.recv().await.transpose().map(|chunk| chunk.filter(|chunk| !chunk.is_empty()))
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// How many bytes of a file are to come by what the guest says of it. A file may grow and the
/// guest stops where it ended when it was opened; an archive's size is never known before.
fn announced(read: &Read, head: FileHead) -> Option<u64> {
    let size = head.size.filter(|_| head.form == Form::File)?;
    let rest = size.saturating_sub(read.options.offset);
    Some(read.options.length.map_or(rest, |length| rest.min(length)))
}

/// A file to temporary storage.
pub(super) async fn spool(
    service: &MetaService,
    read: Read,
) -> Result<io::Result<Artifact>, ExtensionError> {
    let (folder, work) = (service.0.temporary_folder.clone(), service.0.disk_work);
    let share = service.0.storage.file(service.0.bounds.artifact);
    let storage = Storage { spool: None, failed: None };
    let (mut pump, incoming) = Pump::begin(service, read, storage).await?;
    match Spool::create(folder, work, share).await {
        Ok(spool) => pump.taker.spool = Some(spool),
        Err(error) => return Ok(Err(error)),
    }
    pump.read(incoming).await?;
    match pump.taker {
        Storage { failed: None, spool: Some(spool) } => Ok(spool.finish().await),
        Storage { failed, .. } => Ok(Err(failed.unwrap_or(io::ErrorKind::BrokenPipe.into()))),
    }
}

/// Who gets the bytes of a file.
trait Taker {
    /// Takes the next bytes; `false` when no more are wanted.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

impl Taker for mpsc::Sender<Chunk> {
    async fn take(&mut self, bytes: Bytes) -> bool {
        self.send(Ok(bytes)).await.is_ok()
    }
}

/// Temporary storage that is made once there is something to store.
struct Storage {
    spool: Option<Spool>,
    failed: Option<io::Error>,
}

impl Taker for Storage {
    async fn take(&mut self, bytes: Bytes) -> bool {
        if let Some(spool) = &mut self.spool {
            self.failed = spool.push(bytes).await.err();
        }
        self.failed.is_none()
    }
}

struct Pump<T> {
    service: MetaService,
    read: Read,
    head: FileHead,
    /// By the head that came last: a file may have grown before it was taken up again.
    announced: Option<u64>,
    received: u64,
    decoder: Decoder,
    taker: T,
}

/// How one reply has ended.
enum Pass {
    /// The reader has everything, or wants no more.
    Over,
    /// The connection was cut; whether anything had come over it.
    Cut(TransportError, bool),
}

impl Pump<mpsc::Sender<Chunk>> {
    async fn run(mut self, incoming: Incoming) {
        let sender = self.taker.clone();
        let read = async {
            if let Err(error) = self.read(incoming).await {
                let _ = self.taker.send(Err(error)).await;
            }
        };
        tokio::select! {
            biased;
            () = read => {}
            // Nobody wants the rest.
            () = sender.closed() => {}
        }
    }
}

impl<T: Taker> Pump<T> {
    /// Asks the guest for a file.
    async fn begin(
        service: &MetaService,
        read: Read,
        taker: T,
    ) -> Result<(Self, Incoming), ExtensionError> {
        let incoming = service.incoming(ActionRequest::Read(read.clone())).await?;
        // The end-point accepts no reply without a head.
        let head = incoming.head.ok_or_else(|| ExtensionError::invalid("a file without a head"))?;
        let bound = service.0.bounds.artifact;
        let announced = announced(&read, head);
        if announced.is_some_and(|announced| announced > bound) {
            return Err(ExtensionError::TooLarge(bound));
        }
        let (service, decoder) = (service.clone(), Decoder::new());
        Ok((Self { service, read, head, announced, received: 0, decoder, taker }, incoming))
    }

    async fn read(&mut self, incoming: Incoming) -> Result<(), ExtensionError> {
        let mut incoming = Some(incoming);
        let mut attempts = 1;
        loop {
            let pass = match incoming.take() {
                Some(incoming) => self.pass(incoming).await?,
                None => match self.again().await {
                    Ok(again) => {
                        incoming = Some(again);
                        continue;
                    }
                    Err(ExtensionError::Action(ActionError::Transport(cause))) => {
                        Pass::Cut(cause, false)
                    }
                    // A guest that is frozen asks for nothing, and goes on one day.
                    Err(ExtensionError::Action(ActionError::TimedOut(_))) => {
                        Pass::Cut(TransportError::Stalled, false)
                    }
                    Err(error) => return Err(error),
                },
            };
            match pass {
                Pass::Over => return Ok(()),
                Pass::Cut(_, true) => attempts = 1,
                Pass::Cut(cause, false) if attempts >= TRANSFER_ATTEMPTS => {
                    return Err(ActionError::Transport(cause).into());
                }
                Pass::Cut(cause, false) => {
                    tracing::debug!(%cause, attempts, "a read is taken up again");
                    attempts += 1;
                }
            }
        }
    }

    /// Asks for the rest.
    async fn again(&mut self) -> Result<Incoming, ExtensionError> {
        self.read.options.resume = Some(self.decoder.resume());
        let incoming = self.service.incoming(ActionRequest::Read(self.read.clone())).await?;
        let Some(head) = incoming.head.filter(|head| head.form == self.head.form) else {
            return Err(ExtensionError::invalid("a file became a folder, or a folder a file"));
        };
        self.announced = announced(&self.read, head);
        self.decoder = std::mem::take(&mut self.decoder).resumed();
        Ok(incoming)
    }

    /// Counts what has come, before anybody has it.
    fn receive(&mut self, count: u64) -> Result<(), ExtensionError> {
        let bound = self.service.0.bounds.artifact;
        self.received = self.received.saturating_add(count);
        if self.announced.is_some_and(|announced| self.received > announced) {
            return Err(ExtensionError::invalid("more came of the file than it has"));
        }
        if self.received > bound {
            tracing::warn!(path = %self.read.path, bound, "what the guest sends is too large");
            return Err(ExtensionError::TooLarge(bound));
        }
        Ok(())
    }

    async fn pass(&mut self, mut incoming: Incoming) -> Result<Pass, ExtensionError> {
        let mut progress = false;
        loop {
            while let Some(item) = self.decoder.next().map_err(ExtensionError::invalid)? {
                match item {
                    Item::Data(data) => {
                        progress = true;
                        self.receive(data.len() as u64)?;
                        if !self.taker.take(data).await {
                            return Ok(Pass::Over);
                        }
                    }
                    Item::End => {
                        if self.announced.is_some_and(|announced| self.received < announced) {
                            return Err(ExtensionError::invalid(
                                "less came of the file than it has",
                            ));
                        }
                        let _ = incoming.done.send(());
                        return Ok(Pass::Over);
                    }
                    Item::Failed(failure) => return Err(ExtensionError::Refused(failure)),
                }
            }
            match next_chunk(&mut incoming.body, self.service.0.bounds.stall).await {
                Ok(Some(chunk)) => self.decoder.push(chunk),
                Ok(None) => return Ok(Pass::Cut(TransportError::Closed, progress)),
                Err(ReceiveError::Transport(cause)) => return Ok(Pass::Cut(cause, progress)),
                Err(ReceiveError::Storage(_)) => {
                    return Ok(Pass::Cut(TransportError::Closed, progress));
                }
            }
        }
    }
}
