//! Files and archives into the guest, across cuts.
//!
//! ```text
//!   source ─► Encoder ─► ResendBuffer ─► stdin of a stream ─► guest
//!                          ▲ │ after a cut: from the byte that the guest names
//!                          └─┴── released when the guest acknowledges
//! ```

use bytes::{Bytes, BytesMut};
use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{TRANSFER_ATTEMPTS, TRANSFER_BLOCK};
use metaservice_protocol::transfer::Encoder;
use metaservice_protocol::{ActionRequest, Form, StreamFrom, Write, WriteOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::handle::child::command::Child;
use crate::handle::child::first_line::{self, FirstLineError};
use crate::handle::child::stream::ChildStdin;
use crate::handle::error::{ActionError, ChildError, WriteError};
use crate::handle::service::MetaService;
use crate::job::error::TransportError;
use crate::job::id::new_id;

/// Where and how to write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Destination {
    /// The path in the guest.
    pub path: String,
    /// The name in `path` if that is a directory already: one path component.
    pub name: Option<String>,
    /// A file's bytes, or a tar archive of a directory. Not [`Form::Any`].
    pub form: Form,
    /// A file's permission bits; by default 0644.
    pub mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970; by default now.
    pub mtime_ns: Option<i64>,
    /// Keep the set-user-id and set-group-id bits of an archive's members.
    pub set_id: bool,
}

impl Destination {
    /// A file at `path`, with default attributes.
    #[must_use]
    pub fn file(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            name: None,
            form: Form::File,
            mode: None,
            mtime_ns: None,
            set_id: false,
        }
    }

    /// A directory at `path`, from a tar archive.
    #[must_use]
    pub fn directory(path: impl Into<String>) -> Self {
        Self { form: Form::Archive, ..Self::file(path) }
    }
}

impl MetaService {
    /// Writes a file, or the content of a tar archive, to the guest. Returns the length of what was
    /// sent, when it is in place. If the connection is cut, the transfer continues; for that, the
    /// host keeps what the guest has not acknowledged, a little more than
    /// [`SHELL2_WINDOW`](metaservice_protocol::limits::SHELL2_WINDOW) at most.
    ///
    /// # Errors
    /// [`WriteError`]. Then a file is not changed; of an archive, its first members are in place.
    /// An agent of version 1 cannot do this.
    ///
    /// # Cancellation
    /// Dropping the future is as an error. The guest discards the rest after
    /// [`WRITE_RESUME_TIMEOUT`](metaservice_protocol::limits::WRITE_RESUME_TIMEOUT).
    pub async fn write<R: AsyncRead + Send + Unpin>(
        &self,
        destination: Destination,
        source: R,
    ) -> Result<u64, WriteError> {
        write(self, destination, source).await
    }
}

async fn write<R: AsyncRead + Send + Unpin>(
    service: &MetaService,
    destination: Destination,
    source: R,
) -> Result<u64, WriteError> {
    let Destination { path, name, form, mode, mtime_ns, set_id } = destination;
    let options = WriteOptions { form, transfer: new_id(), name, mode, mtime_ns, set_id };
    let request = ActionRequest::Write(Write { path, options });
    let mut content = Content::new(source);
    let mut attempts = 1;
    loop {
        let before = content.acknowledged;
        let cause = match attempt(service, &request, &mut content).await {
            Ok(()) => return Ok(content.encoder.length()),
            Err(WriteError::Action(ActionError::Transport(cause))) => cause,
            // A machine that is paused does not poll, and may continue later. One that has never
            // taken the action is not waited for.
            Err(WriteError::Action(ActionError::TimedOut(_))) if content.begun => {
                TransportError::Stalled
            }
            Err(error) => return Err(error),
        };
        if content.acknowledged > before {
            attempts = 1;
        } else if attempts >= TRANSFER_ATTEMPTS {
            return Err(ActionError::Transport(cause).into());
        } else {
            attempts += 1;
        }
        tracing::debug!(%cause, attempts, "a write continues after a cut");
    }
}

fn cut(cause: TransportError) -> WriteError {
    ActionError::Transport(cause).into()
}

async fn attempt(
    service: &MetaService,
    request: &ActionRequest,
    content: &mut Content<impl AsyncRead + Send + Unpin>,
) -> Result<(), WriteError> {
    let mut child = service.stream(request.clone()).await?;
    content.begun = true;
    child.stderr = None;
    let from = match timeout(service.job.limits.stall, first_line(&mut child)).await {
        Ok(from) => from?,
        Err(_) => return Err(cut(TransportError::Stalled)),
    };
    content.go_back(from)?;
    let sent = match child.stdin.take() {
        Some(input) => send(&child, input, from, content).await,
        None => Ok(()),
    };
    // Why the guest ended is more telling than that it reads nothing more.
    match (child.wait().await.map(|status| status.success()), sent) {
        (Ok(true), Ok(())) => Ok(()),
        (Ok(true), Err(_)) => Err(WriteError::invalid("a success before the end")),
        (Ok(false), Err(error @ WriteError::Source(_))) => Err(error),
        (Ok(false), _) => Err(ActionError::Failed(child.failure()).into()),
        (Err(ChildError::Terminated), _) => Err(ActionError::Terminated.into()),
        (Err(_), Err(error @ WriteError::Source(_))) => Err(error),
        (Err(_), _) => Err(cut(TransportError::Closed)),
    }
}

/// The byte from which the guest wants the transfer. If the guest ends the stream, it says why.
async fn first_line(child: &mut Child) -> Result<u64, WriteError> {
    match first_line::first_line(child).await {
        Ok(StreamFrom { from }) => Ok(from),
        Err(FirstLineError::Invalid(error)) => Err(WriteError::invalid(error)),
        Err(FirstLineError::Cut) => Err(match child.wait().await {
            Ok(_) => ActionError::Failed(child.failure()).into(),
            Err(ChildError::Terminated) => ActionError::Terminated.into(),
            Err(_) => cut(TransportError::Closed),
        }),
    }
}

async fn send(
    child: &Child,
    mut input: ChildStdin,
    from: u64,
    content: &mut Content<impl AsyncRead + Send + Unpin>,
) -> Result<(), WriteError> {
    loop {
        // The source may be silent for hours, and the guest may end meanwhile.
        let next = tokio::select! {
            biased;
            next = content.next() => next?,
            _ = child.wait() => return Err(cut(TransportError::Closed)),
        };
        let Some(mut bytes) = next else { break };
        while !bytes.is_empty() {
            let sent = std::future::poll_fn(|cx| input.poll_send(cx, &mut bytes)).await;
            sent.map_err(|_| cut(TransportError::Closed))?;
            content.release(from + input.acknowledged());
        }
    }
    input.shutdown().await.map_err(|_| cut(TransportError::Closed))
}

/// The source, and what the guest has not acknowledged of it.
struct Content<R> {
    source: R,
    encoder: Encoder,
    outbox: ResendBuffer,
    acknowledged: u64,
    /// Whether the guest has taken the action once.
    begun: bool,
    ended: bool,
}

impl<R: AsyncRead + Send + Unpin> Content<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            encoder: Encoder::new(),
            outbox: ResendBuffer::default(),
            acknowledged: 0,
            begun: false,
            ended: false,
        }
    }

    /// The next encoded bytes, `None` at the end. Cancel safe.
    async fn next(&mut self) -> Result<Option<Bytes>, WriteError> {
        loop {
            if let Some(bytes) = self.outbox.take() {
                return Ok(Some(bytes));
            }
            if self.ended {
                return Ok(None);
            }
            // Takes what one read of the source gives.
            let mut block = BytesMut::with_capacity(TRANSFER_BLOCK);
            let count = self.source.read_buf(&mut block).await.map_err(WriteError::Source)?;
            if count == 0 {
                self.ended = true;
                self.outbox.push(self.encoder.end());
            } else {
                block.truncate(TRANSFER_BLOCK);
                let parts = self.encoder.data(block.freeze());
                parts.into_iter().for_each(|part| self.outbox.push(part));
            }
        }
    }

    fn release(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset);
        self.outbox.release(offset);
    }

    /// Goes back to the byte from which the guest wants the transfer.
    fn go_back(&mut self, from: u64) -> Result<(), WriteError> {
        if from < self.acknowledged {
            return Err(WriteError::invalid(
                "the guest has given up what it had of the transfer: it was cut for too long",
            ));
        }
        if from > self.outbox.next() {
            return Err(WriteError::invalid(format!(
                "the guest wants byte {from} of a transfer of which {} were sent",
                self.outbox.next(),
            )));
        }
        self.release(from);
        self.outbox.rewind();
        Ok(())
    }
}
