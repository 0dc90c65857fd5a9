//! What the handle can do with an agent that has announced it: the extended actions.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use metaservice_protocol::{
    ActionId, Agent, Capability, Entry, Exec, Failure, FileHead, Form, Stats,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::MetaService;
use crate::error::ActionError;
use crate::shell::Shell;

/// Why an extended action has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    /// The guest's agent has not announced that it can do this.
    #[error("the guest's agent cannot do this ('{}'): it speaks version 1 of the protocol", .0.name())]
    Unsupported(Capability),
    /// The agent can, and does not, and says why.
    #[error("{0}")]
    Refused(#[source] Failure),
    /// What the guest sent makes no sense.
    #[error("the guest's reply is not valid")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is to be sent to the guest cannot be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] std::io::Error),
    /// The action itself failed.
    #[error(transparent)]
    Action(#[from] ActionError),
}

/// A file or an archive on its way out of the guest. The bytes are checked as they come, and a
/// cut connection is resumed behind the last byte that was read.
#[derive(Debug)]
pub struct Reading {
    head: FileHead,
}

impl Reading {
    /// Its attributes, and whether the bytes are a file's own or an archive's.
    #[must_use]
    pub fn head(&self) -> FileHead {
        self.head
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        todo!()
    }
}

/// Where a write goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The place in the guest.
    pub path: String,
    /// If `path` is a folder already: the name in it.
    pub name: Option<String>,
    /// A file's bytes, or a tar archive of a folder. Not [`Form::Any`].
    pub form: Form,
    /// A file's permission bits.
    pub mode: Option<u32>,
    /// When the file was last modified, in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
}

/// Values that come from the guest as lines, as long as somebody asks for the next one.
#[derive(Debug)]
pub struct Lines<T> {
    _values: Vec<T>,
}

impl<T: serde::de::DeserializeOwned> Lines<T> {
    /// The next value; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// [`ExtensionError`] when the list is cut, broken or ended by a failure.
    pub async fn next(&mut self) -> Result<Option<T>, ExtensionError> {
        todo!()
    }
}

/// A TCP connection to a port in the guest. Shutting it down for writing is a half-close.
#[derive(Debug)]
pub struct Dialled {}

impl AsyncRead for Dialled {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        todo!()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        todo!()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        todo!()
    }
}

impl MetaService {
    /// What the guest's agent has last announced; `None` before its first word, and for one of
    /// version 1.
    #[must_use]
    pub fn agent(&self) -> Option<Agent> {
        todo!()
    }

    /// Starts a command in the guest, beside the job, in an environment, folder and user of its
    /// own. [`Shell::ending`] tells its exit code or signal.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    ///
    /// # Cancellation
    /// As [`exec_shell`](Self::exec_shell).
    pub async fn exec(&self, _exec: Exec) -> Result<Shell, ExtensionError> {
        todo!()
    }

    /// Starts a command in the guest and leaves it alone; returns its process id there.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    pub async fn exec_detached(&self, _exec: Exec) -> Result<u32, ExtensionError> {
        todo!()
    }

    /// Connects to a TCP port in the guest: of an address, or of `localhost`.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    pub async fn dial(
        &self,
        _host: impl Into<String>,
        _port: u16,
    ) -> Result<Dialled, ExtensionError> {
        todo!()
    }

    /// Reads a file's bytes, or a folder as a tar archive, while they come.
    ///
    /// # Errors
    /// [`ExtensionError`]; later ones come out of the reading as [`std::io::Error`].
    pub async fn read(
        &self,
        _path: impl Into<String>,
        _form: Form,
    ) -> Result<Reading, ExtensionError> {
        todo!()
    }

    /// Writes a file, or what a tar archive holds, into the guest; returns when it is in place.
    /// A connection that is cut meanwhile is resumed: what the guest has not acknowledged (at most
    /// [`SHELL2_WINDOW`](metaservice_protocol::limits::SHELL2_WINDOW)) is kept for that.
    ///
    /// # Errors
    /// [`ExtensionError`]; then nothing is in a file's place, and of an archive what came before.
    pub async fn write<R: AsyncRead + Send + Unpin>(
        &self,
        _destination: Destination,
        _source: R,
    ) -> Result<u64, ExtensionError> {
        todo!()
    }

    /// Lists a folder's entries with their attributes. They are the guest's words.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn list(
        &self,
        _path: impl Into<String>,
        _recursive: bool,
    ) -> Result<Lines<Entry>, ExtensionError> {
        todo!()
    }

    /// What the guest is doing: once, or at every interval.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn stats(&self, _interval: Option<Duration>) -> Result<Lines<Stats>, ExtensionError> {
        todo!()
    }

    /// Sends the job's main process a signal, by its number on Linux.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn signal(&self, _signal: u8) -> Result<(), ExtensionError> {
        todo!()
    }
}

/// Makes the name of a new transfer.
#[expect(dead_code, reason = "for write")]
fn new_transfer() -> ActionId {
    crate::service::new_id()
}
