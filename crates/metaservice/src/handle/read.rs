//! Reads files and directories from the guest, even if connections are cut.
//!
//! A [`Transfer`] decodes the reply, and requests the rest after a cut. For a [`Reading`], it runs
//! in a task of its own. The channel between them holds one chunk, so a slow reader slows the guest
//! down. For temporary storage, it runs in the caller's task.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use metaservice_protocol::limits::TRANSFER_ATTEMPTS;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::transfer::{Decoder, Item};
use metaservice_protocol::{
    ActionRequest, Capability, FailureCode, FileHead, Form, Read, ReadOptions,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::handle::error::{ActionError, ReadError};
use crate::handle::service::MetaService;
use crate::job::actions::{AttemptError, Received};
use crate::job::artifact::{Artifact, Spool};
use crate::job::body::{Incoming, next_chunk};
use crate::job::error::TransportError;

/// A file or directory to be read; see [`MetaService::read`].
#[must_use = "nothing is read before `open` or `spool`"]
pub struct ReadRequest<'a> {
    service: &'a MetaService,
    read: Read,
}

impl MetaService {
    /// A file or directory of the guest, to be read: by default a file's bytes.
    ///
    /// ```no_run
    /// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
    /// use metaservice::Form;
    ///
    /// let mut tar = service.read("/etc").form(Form::Archive).open().await?;
    /// let mut file = tokio::fs::File::create("etc.tar").await?;
    /// tokio::io::copy(&mut tar, &mut file).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(&self, path: impl Into<String>) -> ReadRequest<'_> {
        let (form, follow) = (Form::File, None);
        let options = ReadOptions {
            form,
            offset: 0,
            length: None,
            compress: true,
            follow,
            name: None,
            resume: None,
        };
        ReadRequest { service: self, read: Read { path: path.into(), options } }
    }
}

impl ReadRequest<'_> {
    /// A file's bytes, or a directory as a tar archive, or whichever it is.
    pub fn form(mut self, form: Form) -> Self {
        self.read.options.form = form;
        self
    }

    /// Whether a symbolic link at the end of the path is followed. By default it is, unless an
    /// archive is requested. A link that is not followed comes as an archive of itself, with
    /// [`FileHead::link`]. An older agent does not know this option.
    pub fn follow(mut self, follow: bool) -> Self {
        self.read.options.follow = Some(follow);
        self
    }

    /// The name of a directory in its archive: one path component. By default, and from an older
    /// agent, it is `./`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.read.options.name = Some(name.into());
        self
    }

    /// Reads a part of a file: at most `length` bytes from `offset` on.
    pub fn range(mut self, offset: u64, length: Option<u64>) -> Self {
        (self.read.options.offset, self.read.options.length) = (offset, length);
        self
    }

    /// Reads while the bytes arrive. If the connection is cut, the transfer continues after the
    /// last byte, until it was cut
    /// [`TRANSFER_ATTEMPTS`](metaservice_protocol::limits::TRANSFER_ATTEMPTS) times without
    /// progress. From an agent of version 1, the whole file is [spooled](Self::spool) first; other
    /// forms and ranges are not possible.
    ///
    /// # Errors
    /// [`ReadError`]. Later errors are errors of the reading.
    ///
    /// # Cancellation
    /// Dropping the future, or the reading, ends the guest's reply.
    pub async fn open(self) -> Result<Reading, ReadError> {
        let (service, path) = (self.service, self.path_for_version_1());
        match (self.stream().await, path) {
            (Err(ReadError::Action(ActionError::Unsupported(_))), Some(path)) => {
                let artifact = get_artifact(service, path).await?;
                Ok(Reading { head: None, source: Source::Artifact(artifact) })
            }
            (outcome, _) => outcome,
        }
    }

    /// The path, if the action of version 1 can do what is requested. It always follows links.
    fn path_for_version_1(&self) -> Option<String> {
        let ReadOptions { form, offset, length, .. } = self.read.options;
        let whole = form != Form::Archive && offset == 0 && length.is_none();
        whole.then(|| self.read.path.clone())
    }

    /// As [`open`](Self::open), without the fallback to version 1.
    pub(crate) async fn stream(self) -> Result<Reading, ReadError> {
        let (sender, chunks) = mpsc::channel(1);
        let (transfer, incoming) = Transfer::begin(self.service, self.read, sender).await?;
        let head = transfer.head;
        // Ends when the receiver is dropped.
        tokio::spawn(transfer.run(incoming));
        Ok(Reading { head: Some(head), source: Source::Chunks(chunks, Bytes::new()) })
    }

    /// Reads everything into temporary storage. An error leaves no part of it there.
    ///
    /// # Errors
    /// [`ReadError`]. With an agent of version 1, the action is tried three times if the connection
    /// breaks; with a newer one the transfer continues where it was cut, and is checked by its
    /// digest.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action and frees what was received.
    pub async fn spool(self) -> Result<Artifact, ReadError> {
        let (service, path) = (self.service, self.path_for_version_1());
        if service.can(Capability::Read) || path.is_none() {
            match (spool(service, self.read).await, &path) {
                // The agent that gets the action is not the one that had announced itself.
                (Err(ReadError::Action(ActionError::Unsupported(_))), Some(_)) => {}
                (outcome, Some(_)) => return outcome.map_err(as_version_1),
                (outcome, None) => return outcome,
            }
        }
        get_artifact(service, path.unwrap_or_default()).await
    }
}

impl fmt::Debug for ReadRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest").field("read", &self.read).finish_non_exhaustive()
    }
}

/// The action of version 1.
async fn get_artifact(service: &MetaService, path: String) -> Result<Artifact, ReadError> {
    let request = ActionRequest::GetArtifact { path };
    match service.act(request, StreamProtocol::V2).await {
        Ok(Received::Artifact(artifact)) => Ok(artifact),
        Ok(other) => Err(ActionError::Unexpected(other.unexpected()).into()),
        Err(AttemptError::Storage(cause)) if cause.kind() == io::ErrorKind::FileTooLarge => {
            Err(ReadError::TooLarge(service.job.limits.artifact))
        }
        Err(AttemptError::Storage(cause)) => Err(ReadError::Storage(cause)),
        Err(error) => Err(ActionError::from(error).into()),
    }
}

/// Version 1 has one error for these: *not found*.
fn as_version_1(error: ReadError) -> ReadError {
    match error {
        ReadError::Action(ActionError::Failed(failure))
            if matches!(failure.code, FailureCode::NotAFile | FailureCode::PermissionDenied) =>
        {
            ReadError::NotFound(failure)
        }
        error => error,
    }
}

/// A file or an archive on its way out of the guest. The bytes are checked as they arrive. Dropping
/// it ends the guest's reply.
#[derive(Debug)]
pub struct Reading {
    head: Option<FileHead>,
    source: Source,
}

type Chunk = Result<Bytes, ReadError>;

#[derive(Debug)]
enum Source {
    /// What was taken from the channel and not read yet comes second.
    Chunks(mpsc::Receiver<Chunk>, Bytes),
    Artifact(Artifact),
}

impl Reading {
    /// The attributes, and whether the bytes are a file's own or an archive's. `None` from an agent
    /// of version 1, which tells no attributes: then the bytes are a file's own.
    #[must_use]
    pub const fn head(&self) -> Option<FileHead> {
        self.head
    }
}

/// The bytes in pieces as they arrived, without copying them.
impl Stream for Reading {
    type Item = Result<Bytes, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.source {
            Source::Chunks(chunks, rest) if rest.is_empty() => chunks.poll_recv(cx),
            Source::Chunks(_, rest) => Poll::Ready(Some(Ok(std::mem::take(rest)))),
            Source::Artifact(artifact) => {
                artifact.poll_chunk(cx).map(|chunk| chunk.map_err(ReadError::Storage).transpose())
            }
        }
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::Chunks(chunks, rest) => {
                while rest.is_empty() {
                    match ready!(chunks.poll_recv(cx)) {
                        Some(Ok(chunk)) => *rest = chunk,
                        Some(Err(error)) => return Poll::Ready(Err(error.into())),
                        None => return Poll::Ready(Ok(())),
                    }
                }
                let count = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..count]);
                rest.advance(count);
                Poll::Ready(Ok(()))
            }
            Source::Artifact(artifact) => Pin::new(artifact).poll_read(cx, buf),
        }
    }
}

/// How many bytes of a file will arrive, as the guest announces it. If the file grows, the guest
/// stops at the size that it had when it was opened. The size of an archive is not known before.
fn announced(read: &Read, head: FileHead) -> Option<u64> {
    let size = head.size.filter(|_| head.form == Form::File)?;
    let rest = size.saturating_sub(read.options.offset);
    Some(read.options.length.map_or(rest, |length| rest.min(length)))
}

/// Reads a file into temporary storage, by the extended action.
async fn spool(service: &MetaService, read: Read) -> Result<Artifact, ReadError> {
    let job = &service.job;
    let (directory, work) = (job.temporary_directory.clone(), job.disk_work);
    let share = job.storage.file(job.limits.artifact);
    let storage = Storage { spool: None, failed: None };
    let (mut transfer, incoming) = Transfer::begin(service, read, storage).await?;
    let spool = Spool::create(directory, work, share).await.map_err(ReadError::Storage)?;
    transfer.sink.spool = Some(spool);
    transfer.read(incoming).await?;
    let stored = match transfer.sink {
        Storage { failed: None, spool: Some(spool) } => spool.finish().await,
        Storage { failed, .. } => Err(failed.unwrap_or(io::ErrorKind::BrokenPipe.into())),
    };
    stored.map_err(ReadError::Storage)
}

/// Where the bytes of a file go.
trait Sink {
    /// Takes the next bytes. Returns `false` if no more are wanted.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

impl Sink for mpsc::Sender<Chunk> {
    async fn take(&mut self, bytes: Bytes) -> bool {
        self.send(Ok(bytes)).await.is_ok()
    }
}

/// Temporary storage. The file is created when the guest has begun to reply.
struct Storage {
    spool: Option<Spool>,
    failed: Option<io::Error>,
}

impl Sink for Storage {
    async fn take(&mut self, bytes: Bytes) -> bool {
        if let Some(spool) = &mut self.spool {
            self.failed = spool.push(bytes).await.err();
        }
        self.failed.is_none()
    }
}

/// One transfer out of the guest.
struct Transfer<T> {
    service: MetaService,
    read: Read,
    head: FileHead,
    /// As the last head says: a file may have grown before the transfer continued.
    announced: Option<u64>,
    received: u64,
    decoder: Decoder,
    sink: T,
}

/// How one reply ended.
enum Pass {
    /// The sink has everything, or wants no more.
    Over,
    /// The connection was cut; the flag says whether any byte had arrived over it.
    Cut(TransportError, bool),
}

impl Transfer<mpsc::Sender<Chunk>> {
    async fn run(mut self, incoming: Incoming) {
        let sender = self.sink.clone();
        let read = async {
            if let Err(error) = self.read(incoming).await {
                let _ = self.sink.send(Err(error)).await;
            }
        };
        tokio::select! {
            biased;
            () = read => {}
            // The reader was dropped.
            () = sender.closed() => {}
        }
    }
}

impl<T: Sink> Transfer<T> {
    /// Requests the file from the guest.
    async fn begin(
        service: &MetaService,
        read: Read,
        sink: T,
    ) -> Result<(Self, Incoming), ReadError> {
        let incoming = service.incoming(ActionRequest::Read(read.clone())).await?;
        // The end-point accepts no reply without one.
        let head = incoming.head.ok_or_else(|| ReadError::invalid("a file without a head"))?;
        let limit = service.job.limits.artifact;
        let announced = announced(&read, head);
        if announced.is_some_and(|announced| announced > limit) {
            return Err(ReadError::TooLarge(limit));
        }
        let (service, decoder) = (service.clone(), Decoder::new());
        Ok((Self { service, read, head, announced, received: 0, decoder, sink }, incoming))
    }

    async fn read(&mut self, incoming: Incoming) -> Result<(), ReadError> {
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
                    Err(ReadError::Action(ActionError::Transport(cause))) => {
                        Pass::Cut(cause, false)
                    }
                    // A machine that is paused does not poll, and may continue later.
                    Err(ReadError::Action(ActionError::TimedOut(_))) => {
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
                    tracing::debug!(%cause, attempts, "a read continues after a cut");
                    attempts += 1;
                }
            }
        }
    }

    /// Requests the rest.
    async fn again(&mut self) -> Result<Incoming, ReadError> {
        self.read.options.resume = Some(self.decoder.resume());
        let incoming = self.service.incoming(ActionRequest::Read(self.read.clone())).await?;
        let Some(head) = incoming.head.filter(|head| head.form == self.head.form) else {
            return Err(ReadError::invalid("a file became a directory, or a directory a file"));
        };
        self.announced = announced(&self.read, head);
        self.decoder = std::mem::take(&mut self.decoder).resumed();
        Ok(incoming)
    }

    /// Counts and checks bytes before the sink gets them.
    fn receive(&mut self, count: u64) -> Result<(), ReadError> {
        let limit = self.service.job.limits.artifact;
        self.received = self.received.saturating_add(count);
        if self.announced.is_some_and(|announced| self.received > announced) {
            return Err(ReadError::invalid("more came of the file than it has"));
        }
        if self.received > limit {
            tracing::warn!(path = %self.read.path, limit, "what the guest sends is too large");
            return Err(ReadError::TooLarge(limit));
        }
        Ok(())
    }

    async fn pass(&mut self, mut incoming: Incoming) -> Result<Pass, ReadError> {
        let mut progress = false;
        loop {
            while let Some(item) = self.decoder.next().map_err(ReadError::invalid)? {
                match item {
                    Item::Data(data) => {
                        progress = true;
                        self.receive(data.len() as u64)?;
                        if !self.sink.take(data).await {
                            return Ok(Pass::Over);
                        }
                    }
                    Item::End => {
                        if self.announced.is_some_and(|announced| self.received < announced) {
                            return Err(ReadError::invalid("less came of the file than it has"));
                        }
                        let _ = incoming.done.send(());
                        return Ok(Pass::Over);
                    }
                    Item::Failed(failure) => return Err(ActionError::Failed(failure).into()),
                }
            }
            match next_chunk(&mut incoming.body, self.service.job.limits.stall).await {
                Ok(Some(chunk)) => self.decoder.push(chunk),
                Ok(None) => return Ok(Pass::Cut(TransportError::Closed, progress)),
                Err(cause) => return Ok(Pass::Cut(cause, progress)),
            }
        }
    }
}
