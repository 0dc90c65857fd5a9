//! A shell in the guest, as the host holds it.
//!
//! Three parts share one [`ShellSession`](metaservice_protocol::shell::ShellSession) under a short
//! lock: the streams that the caller reads and writes, the [`Shell`] itself, and the
//! [pump](pump) that moves messages between the session and the websocket. Nobody
//! copies a stream into a channel in between: what a guest may send is bounded by the
//! session's windows, and what a caller has not read stays there.

mod pump;
mod stream;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use metaservice_private::lock;

use bytes::Bytes;
use metaservice_protocol::limits::MAX_FAILURE;
use metaservice_protocol::shell::{Role, ShellSession, Stream, StreamProtocol};
use metaservice_protocol::{Ending, Failure};
use tokio::sync::{Notify, watch};

pub use self::stream::{ShellInput, ShellOutput};
pub(crate) use self::wire::Connected;
pub(crate) use self::wire::Wire;
use crate::handle::error::ShellError;

/// A shell that runs in the guest.
///
/// Take the streams out and use them from tasks of your own; they end by themselves.
/// Dropping the `Shell` before [`wait`](Self::wait) has returned aborts the shell,
/// as nobody could learn its result any longer.
///
/// ```no_run
/// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncReadExt;
///
/// let mut shell = service.exec_shell(["uname", "-r"], false).await?;
/// let mut kernel = String::new();
/// shell.stdout.take().expect("not taken before").read_to_string(&mut kernel).await?;
/// assert!(shell.wait().await?);
/// # Ok(())
/// # }
/// ```
pub struct Shell {
    /// What the command reads. Shutting it down or dropping it ends the command's stdin.
    pub stdin: Option<ShellInput>,
    /// What the command writes; with a tty, all of it. Dropping it discards the rest.
    pub stdout: Option<ShellOutput>,
    /// What the command writes to stderr; with a tty it only ends.
    pub stderr: Option<ShellOutput>,
    shared: Arc<Shared>,
    end: watch::Receiver<Option<Result<bool, ShellError>>>,
}

impl Shell {
    /// Starts the pump of a connected shell. When `terminated` becomes true the shell
    /// ends as [`Terminated`](ShellError::Terminated).
    pub(crate) fn start(
        socket: Wire,
        protocol: StreamProtocol,
        terminated: watch::Receiver<bool>,
    ) -> Self {
        let (sender, end) = watch::channel(None);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(protocol)),
            outgoing: Notify::new(),
            end: sender,
        });
        tokio::spawn(pump::run(socket, Arc::clone(&shared), terminated));
        Self {
            stdin: Some(ShellInput::new(&shared)),
            stdout: Some(ShellOutput::new(&shared, Stream::Stdout)),
            stderr: Some(ShellOutput::new(&shared, Stream::Stderr)),
            shared,
            end,
        }
    }

    /// Tells the terminal its size. Without a tty the guest ignores it.
    pub fn set_size(&self, columns: u16, rows: u16) {
        self.shared.update(|state| state.session.resize(columns, rows));
    }

    /// Kills the shell and everything under it. [`wait`](Self::wait) returns
    /// [`Aborted`](ShellError::Aborted) from now on, unless the shell had ended before.
    pub fn abort(&self) {
        if self.shared.finish(Err(ShellError::Aborted)) {
            self.shared.update(|state| state.session.abort());
        }
    }

    /// Extension: sends the command a signal, by its number on Linux. A guest of version 1 is sent
    /// nothing: then this is false.
    pub fn signal(&self, number: u8) -> bool {
        self.shared.update(|state| state.session.signal(number));
        self.shared.lock().session.protocol() == StreamProtocol::V2
    }

    /// Extension: how the command ended, once [`wait`](Self::wait) has returned and where the
    /// guest says so.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        let success = matches!(*self.end.borrow(), Some(Ok(true)));
        let state = self.shared.lock();
        let ending = Ending::from_header(std::str::from_utf8(&state.detail).ok()?)?;
        // The status byte is what counts; a detail that contradicts it is worth nothing.
        (ending.is_success() == success).then_some(ending)
    }

    /// Why a dial or a write has failed.
    pub(crate) fn failure(&self) -> Failure {
        Failure::from_json(&self.shared.lock().detail)
    }

    /// Waits for the end: whether the command's exit status was 0. What the command
    /// wrote can still be read afterwards. Dropping the future changes nothing.
    ///
    /// # Errors
    /// [`ShellError`] when the shell was aborted or its connection was lost.
    pub async fn wait(&self) -> Result<bool, ShellError> {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await;
        end.ok().and_then(|end| *end).unwrap_or(Err(ShellError::Disconnected))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell").field("end", &*self.end.borrow()).finish_non_exhaustive()
    }
}

struct State {
    session: ShellSession,
    /// Who waits for a stream to become readable or writable, by stream number.
    wakers: [Option<Waker>; 3],
    /// Outputs whose reader is gone: what comes is thrown away.
    discarded: [bool; 3],
    ping_due: bool,
    /// What the exit said beside success or failure; at most [`MAX_FAILURE`] bytes.
    detail: Bytes,
    /// The guest has said that the shell has ended.
    exited: bool,
    /// No message will come or go any longer.
    closed: bool,
}

impl State {
    fn new(protocol: StreamProtocol) -> Self {
        Self {
            session: ShellSession::with_protocol(Role::Host, protocol),
            detail: Bytes::new(),
            wakers: [const { None }; 3],
            discarded: [false; 3],
            ping_due: false,
            exited: false,
            closed: false,
        }
    }

    fn wake(&mut self, stream: Stream) {
        if let Some(waker) = self.wakers[usize::from(stream.number())].take() {
            waker.wake();
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// The session may have something to send.
    outgoing: Notify,
    end: watch::Sender<Option<Result<bool, ShellError>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.outgoing.notify_one();
    }

    /// Records the end. The first one counts; `false` for a later one.
    fn finish(&self, end: Result<bool, ShellError>) -> bool {
        let first = self.end.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(end);
            first
        });
        if first {
            let mut state = self.lock();
            Stream::ALL.into_iter().for_each(|stream| state.wake(stream));
        }
        first
    }

    fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// The error that the streams report once there is nothing more to read or write.
    fn error(&self) -> Option<ShellError> {
        self.end.borrow().and_then(Result::err)
    }
}
