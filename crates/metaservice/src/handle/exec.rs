//! Commands that run in the guest in addition to the job.

use std::fmt;

use bytes::Bytes;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{ActionRequest, Capability, Detached, Exec, ExecOptions, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::handle::child::command::{Child, ExitStatus};
use crate::handle::child::socket::Connected;
use crate::handle::error::{ActionError, ChildError, ExecError};
use crate::handle::service::MetaService;
use crate::job::actions::Received;

/// How many bytes of output [`Command::output`] accepts by default, of each stream.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// Where a [`Command`] runs: behind a [`MetaService`], or behind a control socket.
pub trait Executor {
    /// Why a command did not run to its end.
    type Error: From<ChildError> + From<OutputTooLong>;

    #[doc(hidden)]
    fn start(&self, exec: Exec) -> impl Future<Output = Result<Child, Self::Error>> + Send;

    #[doc(hidden)]
    fn start_detached(&self, exec: Exec) -> impl Future<Output = Result<u32, Self::Error>> + Send;
}

/// A command wrote more than [`Command::output_limit`] allows: this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command wrote more than {0} bytes")]
pub struct OutputTooLong(pub usize);

impl From<OutputTooLong> for ExecError {
    fn from(OutputTooLong(limit): OutputTooLong) -> Self {
        Self::OutputTooLong(limit)
    }
}

/// A command to run in the guest in addition to the job. It is built like
/// `tokio::process::Command`.
///
/// A command is started once: no connection error makes the host start it again. An agent of
/// version 1 runs a command that has neither environment, working directory nor user.
///
/// ```no_run
/// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
/// let output = service.exec(["sh", "-c", "id -un; pwd"]).user("daemon").workdir("/").output().await?;
/// assert_eq!(output.stdout, b"daemon\n/\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a command runs when it is spawned"]
pub struct Command<'a, E> {
    executor: &'a E,
    exec: Exec,
    stdin: Option<Bytes>,
    output_limit: usize,
}

/// What a command wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How the command ended.
    pub status: ExitStatus,
    /// Everything that it wrote to stdout; with a terminal, everything that it wrote.
    pub stdout: Vec<u8>,
    /// Everything that it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl<'a, E: Executor> Command<'a, E> {
    pub(crate) fn new<S: Into<String>>(
        executor: &'a E,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        let exec = Exec { command, tty: false, options: ExecOptions::default() };
        Self { executor, exec, stdin: None, output_limit: OUTPUT_LIMIT }
    }

    /// Sets a variable, on top of the job's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.exec.options.env.insert(name.into(), value.into());
        self
    }

    /// Sets several variables.
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.exec.options.env.extend(variables);
        self
    }

    /// The working directory; by default the job's.
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.exec.options.workdir = Some(directory.into());
        self
    }

    /// The user: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; by default the job's.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.exec.options.user = Some(user.into());
        self
    }

    /// Gives the command a terminal: then it writes everything to stdout.
    pub fn terminal(mut self) -> Self {
        self.exec.tty = true;
        self
    }

    /// The terminal's size at the start. It has no effect without a [terminal](Self::terminal).
    pub fn terminal_size(mut self, size: TerminalSize) -> Self {
        self.exec.options.size = Some(size);
        self
    }

    /// What the command reads from stdin, to its end. Without, [`spawn`](Self::spawn) gives you
    /// [`Child::stdin`] to write to, and for [`output`](Self::output) and [`status`](Self::status)
    /// stdin is empty.
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How many bytes [`output`](Self::output) accepts, of each stream; by default 16 MiB.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Starts the command.
    ///
    /// # Errors
    /// [`ExecError`], or the control client's error.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action. A command that had just started is aborted.
    pub async fn spawn(self) -> Result<Child, E::Error> {
        let size = self.exec.options.size;
        let mut child = self.executor.start(self.exec).await?;
        // Version 1 sets the size by a message of the stream.
        if let Some(TerminalSize { columns, rows }) = size {
            child.set_size(columns, rows);
        }
        if let Some(bytes) = self.stdin {
            child.feed(bytes);
        }
        Ok(child)
    }

    /// Starts the command without streams and returns its process id in the guest. The command
    /// ends with the job at the latest.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn). An agent of version 1 cannot do this.
    pub async fn spawn_detached(mut self) -> Result<u32, E::Error> {
        self.exec.options.detach = true;
        self.executor.start_detached(self.exec).await
    }

    /// Runs the command to its end, and collects what it writes.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and if the command writes more than the
    /// [limit](Self::output_limit). Then it is aborted.
    ///
    /// # Cancellation
    /// Dropping the future aborts the command.
    pub async fn output(self) -> Result<Output, E::Error> {
        let limit = self.output_limit;
        let mut child = self.spawn().await?;
        drop(child.stdin.take());
        let (stdout, stderr) = tokio::try_join!(
            collect(child.stdout.take(), limit),
            collect(child.stderr.take(), limit),
        )?;
        Ok(Output { status: child.wait().await?, stdout, stderr })
    }

    /// Runs the command to its end, and discards what it writes.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Cancellation
    /// Dropping the future aborts the command.
    pub async fn status(self) -> Result<ExitStatus, E::Error> {
        let mut child = self.spawn().await?;
        (child.stdin, child.stdout, child.stderr) = (None, None, None);
        Ok(child.wait().await?)
    }
}

/// Reads a stream to its end. A stream that breaks ends there: the child's end has the cause.
async fn collect(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> Result<Vec<u8>, OutputTooLong> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let _ = stream.take(most).read_to_end(&mut bytes).await;
    }
    if bytes.len() > limit { Err(OutputTooLong(limit)) } else { Ok(bytes) }
}

impl<E> fmt::Debug for Command<'_, E> {
    /// Shows no variable: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("command", &self.exec.command)
            .field("workdir", &self.exec.options.workdir)
            .field("user", &self.exec.options.user)
            .finish_non_exhaustive()
    }
}

impl MetaService {
    /// A command to run in the guest in addition to the job; see [`Command`]. An empty command is
    /// the guest's default shell.
    pub fn exec<S: Into<String>>(&self, command: impl IntoIterator<Item = S>) -> Command<'_, Self> {
        Command::new(self, command)
    }

    /// The stream of a command, before anything was read or sent, with stream protocol `most` or an
    /// earlier one.
    pub(crate) async fn exec_socket(
        &self,
        mut exec: Exec,
        most: StreamProtocol,
    ) -> Result<Connected, ExecError> {
        exec.options.detach = false;
        if exec.is_too_large() {
            return Err(ExecError::TooLong);
        }
        let ExecOptions { env, workdir, user, size: _, detach: _ } = &exec.options;
        let plain = env.is_empty() && workdir.is_none() && user.is_none();
        let of_version_1 =
            ActionRequest::ExecShell { command: exec.command.clone(), tty: exec.tty };
        // An `exec` always has stream protocol v2.
        if most == StreamProtocol::V1 && plain {
            return Ok(self.socket(of_version_1, most).await?);
        }
        match self.socket(ActionRequest::Exec(exec), most).await {
            // An agent with `exec` that refuses the size of this one refuses an `exec-shell` too.
            Err(ActionError::Unsupported(lacks))
                if plain && (lacks == Capability::Exec || self.agent().is_none()) =>
            {
                Ok(self.socket(of_version_1, most).await?)
            }
            outcome => Ok(outcome?),
        }
    }
}

impl Executor for MetaService {
    type Error = ExecError;

    async fn start(&self, exec: Exec) -> Result<Child, ExecError> {
        Ok(self.start_child(self.exec_socket(exec, StreamProtocol::V2).await?))
    }

    async fn start_detached(&self, exec: Exec) -> Result<u32, ExecError> {
        if exec.is_too_large() {
            return Err(ExecError::TooLong);
        }
        match self
            .act(ActionRequest::Exec(exec), StreamProtocol::V2)
            .await
            .map_err(ActionError::from)?
        {
            Received::Json(json) => {
                let Detached { pid } =
                    serde_json::from_slice(&json).map_err(ActionError::invalid)?;
                Ok(pid)
            }
            other => Err(ActionError::Unexpected(other.unexpected()).into()),
        }
    }
}
