//! Files and archives into the guest, across cuts.
//!
//! ```text
//!   source ─► Encoder ─► ResendBuffer ─► stdin of a stream ─► guest
//!                          ▲ │ cut: from where the guest says
//!                          └─┴── released as the guest acknowledges
//! ```

use bytes::{Bytes, BytesMut};
use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{TRANSFER_ATTEMPTS, TRANSFER_BLOCK};
use metaservice_protocol::transfer::Encoder;
use metaservice_protocol::{ActionRequest, Form, Write, WriteFrom, WriteOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::actions::ExtensionError;
use crate::MetaService;
use crate::handle::error::{ActionError, ShellError, TransportError};
use crate::handle::service::new_id;
use crate::handle::shell::{Shell, ShellInput};

/// The longest first line of a guest, in bytes.
const MAX_FIRST_LINE: usize = 256;

/// Where a write goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The place in the guest.
    pub path: String,
    /// If `path` is a folder already: the name in it, one path component.
    pub name: Option<String>,
    /// A file's bytes, or a tar archive of a folder. Not [`Form::Any`].
    pub form: Form,
    /// A file's permission bits; by default 0644.
    pub mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970; by default now.
    pub mtime_ns: Option<i64>,
    /// Whether set-user-id and set-group-id bits of an archive's members are kept.
    pub set_id: bool,
}

impl Destination {
    /// A file at `path`, as it would be if it were made now.
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

    /// A folder at `path`, from a tar archive.
    #[must_use]
    pub fn folder(path: impl Into<String>) -> Self {
        Self { form: Form::Archive, ..Self::file(path) }
    }
}

pub(super) async fn write<R: AsyncRead + Send + Unpin>(
    service: &MetaService,
    destination: Destination,
    source: R,
) -> Result<u64, ExtensionError> {
    let Destination { path, name, form, mode, mtime_ns, set_id } = destination;
    let options = WriteOptions { form, transfer: new_id(), name, mode, mtime_ns, set_id };
    let request = ActionRequest::Write(Write { path, options });
    let mut content = Content::new(source);
    let mut attempts = 1;
    loop {
        let before = content.acknowledged;
        let cause = match attempt(service, &request, &mut content).await {
            Ok(()) => return Ok(content.encoder.length()),
            Err(ExtensionError::Action(ActionError::Transport(cause))) => cause,
            // A guest that is frozen asks for nothing, and goes on one day. One that has never
            // taken the action is not waited for.
            Err(ExtensionError::Action(ActionError::TimedOut(_))) if content.begun => {
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
        tracing::debug!(%cause, attempts, "a write is taken up again");
    }
}

fn cut(cause: TransportError) -> ExtensionError {
    ActionError::Transport(cause).into()
}

async fn attempt(
    service: &MetaService,
    request: &ActionRequest,
    content: &mut Content<impl AsyncRead + Send + Unpin>,
) -> Result<(), ExtensionError> {
    let mut shell = service.stream(request.clone()).await?;
    content.begun = true;
    shell.stderr = None;
    let from = match timeout(service.0.bounds.stall, first_line(&mut shell)).await {
        Ok(from) => from?,
        Err(_) => return Err(cut(TransportError::Stalled)),
    };
    content.go_back(from)?;
    let sent = match shell.stdin.take() {
        Some(input) => send(&shell, input, from, content).await,
        None => Ok(()),
    };
    // What the guest says of the end counts more than that it no longer takes anything.
    match (shell.wait().await, sent) {
        (Ok(true), Ok(())) => Ok(()),
        (Ok(true), Err(_)) => Err(ExtensionError::invalid("a success before the end")),
        (Ok(false), Err(error @ ExtensionError::Source(_))) => Err(error),
        (Ok(false), _) => Err(ExtensionError::Refused(shell.failure())),
        (Err(ShellError::Terminated), _) => Err(ActionError::Terminated.into()),
        (Err(_), Err(error @ ExtensionError::Source(_))) => Err(error),
        (Err(_), _) => Err(cut(TransportError::Closed)),
    }
}

/// From which byte the guest wants the transfer. A guest that ends the stream instead says why.
async fn first_line(shell: &mut Shell) -> Result<u64, ExtensionError> {
    let mut line = Vec::new();
    let Some(mut output) = shell.stdout.take() else { return Ok(0) };
    loop {
        match output.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if line.len() == MAX_FIRST_LINE => {
                return Err(ExtensionError::invalid("the first line is too long"));
            }
            Ok(byte) => line.push(byte),
            Err(_) => {
                return Err(match shell.wait().await {
                    Ok(_) => ExtensionError::Refused(shell.failure()),
                    Err(ShellError::Terminated) => ActionError::Terminated.into(),
                    Err(_) => cut(TransportError::Closed),
                });
            }
        }
    }
    let WriteFrom { from } = serde_json::from_slice(&line).map_err(ExtensionError::invalid)?;
    Ok(from)
}

async fn send(
    shell: &Shell,
    mut input: ShellInput,
    from: u64,
    content: &mut Content<impl AsyncRead + Send + Unpin>,
) -> Result<(), ExtensionError> {
    loop {
        // A source may be silent for hours, and the guest gone meanwhile.
        let next = tokio::select! {
            biased;
            next = content.next() => next?,
            _ = shell.wait() => return Err(cut(TransportError::Closed)),
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

/// The transfer from its source on, as far as the guest has not acknowledged it.
struct Content<R> {
    source: R,
    encoder: Encoder,
    outbox: ResendBuffer,
    acknowledged: u64,
    /// Whether the guest has taken the action at all.
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

    /// The next encoded bytes; `None` when there are no more. Nothing is lost when this future is
    /// dropped.
    async fn next(&mut self) -> Result<Option<Bytes>, ExtensionError> {
        loop {
            if let Some(bytes) = self.outbox.take() {
                return Ok(Some(bytes));
            }
            if self.ended {
                return Ok(None);
            }
            // Filled as far as the source gives without waiting for more than something.
            let mut block = BytesMut::with_capacity(TRANSFER_BLOCK);
            let count = self.source.read_buf(&mut block).await.map_err(ExtensionError::Source)?;
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

    /// The guest wants the transfer from this byte on.
    fn go_back(&mut self, from: u64) -> Result<(), ExtensionError> {
        if from < self.acknowledged {
            return Err(ExtensionError::invalid(
                "the guest has given up what it had of the transfer: it was cut for too long",
            ));
        }
        if from > self.outbox.next() {
            return Err(ExtensionError::invalid(format!(
                "the guest wants byte {from} of a transfer of which {} were sent",
                self.outbox.next(),
            )));
        }
        self.release(from);
        self.outbox.rewind();
        Ok(())
    }
}
