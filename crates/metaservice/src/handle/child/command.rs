//! A command that runs in the guest, as the host holds it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use metaservice_protocol::shell::{Stream, StreamProtocol};
use metaservice_protocol::{Ending, Failure};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pump;
use super::shared::Shared;
use super::socket::Socket;
use super::stream::{ChildOutput, ChildStdin};
use crate::handle::error::ChildError;

/// A command that runs in the guest.
///
/// Take the standard streams and use them in tasks of your own; they end by themselves. Dropping
/// the `Child` before [`wait`](Self::wait) has returned aborts the command.
///
/// ```no_run
/// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncReadExt;
///
/// let mut child = service.exec(["uname", "-r"]).spawn().await?;
/// let mut kernel = String::new();
/// child.stdout.take().expect("not taken before").read_to_string(&mut kernel).await?;
/// assert!(child.wait().await?.success());
/// # Ok(())
/// # }
/// ```
pub struct Child {
    /// What the command reads. Shutting it down or dropping it ends the command's stdin.
    pub stdin: Option<ChildStdin>,
    /// What the command writes to stdout; with a terminal, all that it writes. Dropping it discards
    /// the rest.
    pub stdout: Option<ChildOutput>,
    /// What the command writes to stderr; with a terminal, nothing.
    pub stderr: Option<ChildOutput>,
    shared: Arc<Shared>,
    end: watch::Receiver<Option<Result<bool, ChildError>>>,
    /// Writes what [`Command::stdin`](crate::Command::stdin) was given.
    feeder: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts the pump of a connected stream. When `terminated` becomes true the stream ends as
    /// [`Terminated`](ChildError::Terminated).
    pub(crate) fn start(
        socket: Socket,
        protocol: StreamProtocol,
        terminated: watch::Receiver<bool>,
    ) -> Self {
        let shared = Arc::new(Shared::new(protocol));
        // The pump ends with the websocket, which ends with this value: see `Drop`.
        tokio::spawn(pump::run(socket, Arc::clone(&shared), terminated));
        Self {
            stdin: Some(ChildStdin::new(&shared)),
            stdout: Some(ChildOutput::new(&shared, Stream::Stdout)),
            stderr: Some(ChildOutput::new(&shared, Stream::Stderr)),
            end: shared.end.subscribe(),
            shared,
            feeder: None,
        }
    }

    /// Writes these bytes to stdin and ends it, while the command runs.
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        if let Some(mut stdin) = self.stdin.take() {
            self.feeder = Some(tokio::spawn(async move {
                // A command may end without reading its stdin.
                let _ = stdin.write_all(&bytes).await;
            }));
        }
    }

    /// Sets the terminal's size. Without a terminal the guest ignores it.
    pub fn set_size(&self, columns: u16, rows: u16) {
        self.shared.update(|state| state.session.resize(columns, rows));
    }

    /// Kills the command and everything under it. From now on [`wait`](Self::wait) returns
    /// [`Aborted`](ChildError::Aborted), unless the command had ended before.
    pub fn abort(&self) {
        if self.shared.finish(Err(ChildError::Aborted)) {
            self.shared.update(|state| state.session.abort());
        }
    }

    /// Sends the command a signal, by its number on Linux. Returns `false` for an agent of version
    /// 1, which gets nothing.
    pub fn signal(&self, number: u8) -> bool {
        self.shared.update(|state| state.session.signal(number));
        self.shared.lock().session.protocol() == StreamProtocol::V2
    }

    /// Why a dial or a write has failed.
    pub(crate) fn failure(&self) -> Failure {
        Failure::from_json(&self.shared.lock().detail)
    }

    /// Waits for the end of a stream that carries no command. The inner error is the guest's
    /// reason.
    #[cfg(feature = "control")]
    pub(crate) fn closed(
        &self,
    ) -> impl Future<Output = Result<Result<(), Failure>, ChildError>> + Send + use<> {
        let (mut end, shared) = (self.end.clone(), Arc::clone(&self.shared));
        async move {
            // An error means that the pump is gone without an end.
            let _ = end.wait_for(Option::is_some).await;
            let success = (*end.borrow()).unwrap_or(Err(ChildError::Disconnected))?;
            Ok(if success { Ok(()) } else { Err(Failure::from_json(&shared.lock().detail)) })
        }
    }

    /// Waits for the command's end. What it wrote can still be read afterwards. Cancel safe.
    ///
    /// # Errors
    /// [`ChildError`] if the command was aborted or its connection was lost.
    pub async fn wait(&self) -> Result<ExitStatus, ChildError> {
        let mut end = self.end.clone();
        // An error means that the pump is gone without an end.
        let _ = end.wait_for(Option::is_some).await;
        self.try_wait().unwrap_or(Err(ChildError::Disconnected))
    }

    /// The command's end, if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<Result<ExitStatus, ChildError>> {
        let success = match (*self.end.borrow())? {
            Ok(success) => success,
            Err(error) => return Some(Err(error)),
        };
        let state = self.shared.lock();
        let text = std::str::from_utf8(&state.detail).ok();
        let ending = text.and_then(Ending::from_header);
        // The status byte is what counts; a detail that contradicts it is ignored.
        let ending = ending.filter(|ending| ending.is_success() == success);
        Some(Ok(ExitStatus { success, ending }))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.abort();
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("end", &*self.end.borrow()).finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    success: bool,
    ending: Option<Ending>,
}

impl ExitStatus {
    /// Whether the exit code was 0.
    #[must_use]
    pub const fn success(&self) -> bool {
        self.success
    }

    /// The exit code; `None` if a signal ended the command, or if an agent of version 1 reports a
    /// failure, which has no code.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        match &self.ending {
            _ if self.success => Some(0),
            Some(ending) => ending.exit_code,
            None => None,
        }
    }

    /// The number of the signal that ended the command, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        self.ending.as_ref().and_then(|ending| ending.signal)
    }

    /// All that the agent reports of the end; `None` from an agent of version 1.
    #[must_use]
    pub const fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }
}
