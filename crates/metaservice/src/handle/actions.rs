//! What the handle can do with an agent that has announced it: the extended actions.
//!
//! Owns the calls of the handle; what they return lives in modules of its own. An extended
//! action is tried once. Only a read and a write, which say how far they have come, are
//! taken up again when their connection is cut.

use std::time::Duration;

use axum::body::Body;
use metaservice_protocol::limits::{MAX_ACTION, MAX_STATS_INTERVAL_MS, MIN_STATS_INTERVAL_MS};
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{
    ActionRequest, AgentInfo, Capability, Detached, Dial, DirectoryEntry, Exec, ExecOptions,
    Failure, FailureCode, FileHead, Form, List, ListOptions, Read, ReadOptions, Signal, Stats,
    StatsOptions, TerminalSize,
};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

pub use super::dial::Dialled;
pub use super::lines::Lines;
pub use super::read::Reading;
pub use super::write::Destination;
use super::{read as reading, write as writing};
use crate::MetaService;
use crate::handle::error::{ActionError, ArtifactError, TransportError};
use crate::handle::shell::Connected;
use crate::handle::shell::Shell;
use crate::job::actions::{AttemptError, Received};
use crate::job::artifact::Artifact;

/// Why an extended action has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    /// The guest's agent has not announced that it can do this.
    #[error("the guest's agent does not offer '{}': it speaks version 1 of the protocol, or an older one of ours", .0.name())]
    Unsupported(Capability),
    /// The agent can, and does not, and says why.
    #[error("the guest refuses: {0}")]
    Refused(#[source] Failure),
    /// What the guest sent makes no sense.
    #[error("the guest's reply is not valid")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has more bytes than [`Bounds::artifact`](crate::Bounds::artifact).
    #[error("the guest's file is larger than {0} bytes")]
    TooLarge(u64),
    /// A command and its environment are larger than
    /// [`MAX_ACTION`](metaservice_protocol::limits::MAX_ACTION).
    #[error(
        "the command and its environment are too long: as JSON they have more than {MAX_ACTION} bytes"
    )]
    TooLong,
    /// What is to be sent to the guest cannot be read.
    #[error("cannot read what is to be sent")]
    Source(#[source] std::io::Error),
    /// The action itself failed.
    #[error(transparent)]
    Action(#[from] ActionError),
}

impl ExtensionError {
    pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Invalid(error.into())
    }
}

impl From<AttemptError> for ExtensionError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Unsupported(capability) => Self::Unsupported(capability),
            AttemptError::Refused(failure) => Self::Refused(failure),
            AttemptError::Action(error) => Self::Action(error),
        }
    }
}

impl From<ExtensionError> for std::io::Error {
    fn from(error: ExtensionError) -> Self {
        use std::io::ErrorKind as Kind;
        let kind = match &error {
            ExtensionError::Unsupported(_) => Kind::Unsupported,
            ExtensionError::Refused(failure) => match failure.code {
                FailureCode::NotFound => Kind::NotFound,
                FailureCode::PermissionDenied => Kind::PermissionDenied,
                FailureCode::NoSpace => Kind::StorageFull,
                FailureCode::ConnectionRefused => Kind::ConnectionRefused,
                _ => Kind::Other,
            },
            ExtensionError::Invalid(_) => Kind::InvalidData,
            ExtensionError::TooLarge(_) => Kind::FileTooLarge,
            ExtensionError::TooLong => Kind::ArgumentListTooLong,
            ExtensionError::Source(_) => Kind::Other,
            ExtensionError::Action(ActionError::TimedOut(_)) => Kind::TimedOut,
            ExtensionError::Action(_) => Kind::ConnectionReset,
        };
        Self::new(kind, error)
    }
}

/// A reply whose body is read while it comes. Dropping it cuts the guest off; completing
/// `done` tells the guest that all of it was taken.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head: Option<FileHead>,
    pub(crate) body: Body,
    pub(crate) done: oneshot::Sender<()>,
}

impl MetaService {
    /// What the guest's agent has last announced; `None` before its first word, and for one of
    /// version 1.
    #[must_use]
    pub fn agent(&self) -> Option<AgentInfo> {
        self.0.agent.borrow().clone()
    }

    /// Starts a command in the guest, beside the job, in an environment, folder and user of its
    /// own. [`Shell::ending`] tells its exit code or signal. An agent of version 1 is asked for
    /// an [`exec_shell`](Self::exec_shell) where that is enough, and tells no more than it can.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    ///
    /// # Cancellation
    /// As [`exec_shell`](Self::exec_shell).
    pub async fn exec(&self, exec: Exec) -> Result<Shell, ExtensionError> {
        let size = exec.options.size;
        let shell = self.start_shell(self.exec_socket(exec, StreamProtocol::V2).await?);
        // An exec-shell knows it no other way; for an exec it changes nothing.
        if let Some(TerminalSize { columns, rows }) = size {
            shell.set_size(columns, rows);
        }
        Ok(shell)
    }

    /// A command's stream as the guest dialled it, before anything has been read or sent.
    pub(crate) async fn exec_socket(
        &self,
        mut exec: Exec,
        most: StreamProtocol,
    ) -> Result<Connected, ExtensionError> {
        exec.options.detach = false;
        if exec.is_too_large() {
            return Err(ExtensionError::TooLong);
        }
        let ExecOptions { env, workdir, user, size: _, detach: _ } = &exec.options;
        let plain = env.is_empty() && workdir.is_none() && user.is_none();
        let shell = ActionRequest::ExecShell { command: exec.command.clone(), tty: exec.tty };
        // An exec is a stream of stream protocol v2, whatever it asks for.
        if most == StreamProtocol::V1 && plain {
            return self.socket(shell, most).await;
        }
        match self.socket(ActionRequest::Exec(exec), most).await {
            // An agent of ours that does not take an exec of this size does not take this either.
            Err(ExtensionError::Unsupported(lacks))
                if plain && (lacks == Capability::Exec || self.agent().is_none()) =>
            {
                self.socket(shell, most).await
            }
            outcome => outcome,
        }
    }

    /// An action that is answered by a websocket, of this protocol at most.
    pub(crate) async fn socket(
        &self,
        request: ActionRequest,
        most: StreamProtocol,
    ) -> Result<Connected, ExtensionError> {
        let place = self.place()?;
        match self.act(request, most).await? {
            Received::Stream(socket, protocol, admitted) => {
                Ok(Connected { socket: *socket, protocol, place, admitted })
            }
            other => Err(other.unexpected().into()),
        }
    }

    /// Starts a command in the guest and leaves it alone; returns its process id there. It lives
    /// no longer than the job.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    pub async fn exec_detached(&self, mut exec: Exec) -> Result<u32, ExtensionError> {
        exec.options.detach = true;
        if exec.is_too_large() {
            return Err(ExtensionError::TooLong);
        }
        match self.act(ActionRequest::Exec(exec), StreamProtocol::V2).await? {
            Received::Json(json) => {
                let Detached { pid } =
                    serde_json::from_slice(&json).map_err(ExtensionError::invalid)?;
                Ok(pid)
            }
            other => Err(other.unexpected().into()),
        }
    }

    /// Connects to a TCP port in the guest: of an address, or of `localhost`.
    ///
    /// # Errors
    /// [`ExtensionError`]; it is tried once.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action; a connection that had just been made is reset.
    pub async fn dial(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<Dialled, ExtensionError> {
        let dial = Dial { host: host.into(), port };
        self.stream(ActionRequest::Dial(dial)).await.map(Dialled::new)
    }

    /// Reads a file's bytes, or a folder as a tar archive, while they come. A cut connection is
    /// resumed behind the last byte; [`TRANSFER_ATTEMPTS`](metaservice_protocol::limits::TRANSFER_ATTEMPTS)
    /// cuts in a row without one are too many.
    ///
    /// # Errors
    /// [`ExtensionError`]; later ones come out of the reading.
    ///
    /// # Cancellation
    /// Dropping the future, or the reading, cuts the guest off.
    pub async fn read(
        &self,
        path: impl Into<String>,
        form: Form,
    ) -> Result<Reading, ExtensionError> {
        Reading::begin(self, Read { path: path.into(), options: whole(form) }).await
    }

    /// As [`read`](Self::read), and says whether a link at the end of the path is followed. `read`
    /// follows it unless an archive is asked for, and so does an older agent. A link that is not
    /// followed comes as an archive of itself, with [`FileHead::link`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_link(
        &self,
        path: impl Into<String>,
        form: Form,
        follow: bool,
    ) -> Result<Reading, ExtensionError> {
        let options = ReadOptions { follow: Some(follow), ..whole(form) };
        Reading::begin(self, Read { path: path.into(), options }).await
    }

    /// Reads a part of a file: at most `length` bytes from `offset`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_range(
        &self,
        path: impl Into<String>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Reading, ExtensionError> {
        let form = Form::File;
        let options = ReadOptions { offset, length, ..whole(form) };
        Reading::begin(self, Read { path: path.into(), options }).await
    }

    /// Writes a file, or what a tar archive holds, into the guest; returns the length of what was
    /// sent when it is in place. A connection that is cut meanwhile is resumed: what the guest
    /// has not acknowledged, some more than
    /// [`SHELL2_WINDOW`](metaservice_protocol::limits::SHELL2_WINDOW) at most, is kept for that.
    ///
    /// # Errors
    /// [`ExtensionError`]; then nothing is in a file's place, and of an archive what came before.
    ///
    /// # Cancellation
    /// Dropping the future is an error in the sense above; the guest forgets the rest after
    /// [`WRITE_RESUME_TIMEOUT`](metaservice_protocol::limits::WRITE_RESUME_TIMEOUT).
    pub async fn write<R: AsyncRead + Send + Unpin>(
        &self,
        destination: Destination,
        source: R,
    ) -> Result<u64, ExtensionError> {
        writing::write(self, destination, source).await
    }

    /// Lists a folder's entries with their attributes. They are the guest's words.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn list(
        &self,
        path: impl Into<String>,
        recursive: bool,
    ) -> Result<Lines<DirectoryEntry>, ExtensionError> {
        let list = List { path: path.into(), options: ListOptions { recursive } };
        self.incoming(ActionRequest::List(list)).await.map(Lines::new)
    }

    /// What the guest is doing: once, or at every interval (of 0.1 s to 10 s: others are moved to
    /// the nearer end) until the lines are dropped.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn stats(&self, interval: Option<Duration>) -> Result<Lines<Stats>, ExtensionError> {
        let interval_ms = interval.map(|interval| {
            let milliseconds = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
            milliseconds.clamp(MIN_STATS_INTERVAL_MS, MAX_STATS_INTERVAL_MS)
        });
        self.incoming(ActionRequest::Stats(StatsOptions { interval_ms })).await.map(Lines::new)
    }

    /// Sends the job's main process a signal, by its number on Linux.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub async fn signal(&self, signal: u8) -> Result<(), ExtensionError> {
        match self.act(ActionRequest::Signal(Signal { signal }), StreamProtocol::V2).await? {
            Received::Done => Ok(()),
            other => Err(other.unexpected().into()),
        }
    }

    /// An action that is answered by a stream of stream protocol v2.
    pub(crate) async fn stream(&self, request: ActionRequest) -> Result<Shell, ExtensionError> {
        Ok(self.start_shell(self.socket(request, StreamProtocol::V2).await?))
    }

    /// An action that is answered by a body that is read while it comes.
    pub(crate) async fn incoming(
        &self,
        request: ActionRequest,
    ) -> Result<Incoming, ExtensionError> {
        match self.act(request, StreamProtocol::V2).await? {
            Received::Body(incoming) => Ok(*incoming),
            other => Err(other.unexpected().into()),
        }
    }

    /// A file to temporary storage, by the extended read; `None` where the agent that was asked
    /// cannot do that: it is not the one that had announced itself.
    pub(crate) async fn spool(&self, path: &str) -> Option<Result<Artifact, ArtifactError>> {
        let read = Read { path: path.to_owned(), options: whole(Form::File) };
        match reading::spool(self, read).await {
            Err(ExtensionError::Unsupported(_)) => None,
            Err(error) => Some(Err(as_artifact(error))),
            Ok(stored) => Some(stored.map_err(ArtifactError::Storage)),
        }
    }
}

/// All of a file or folder, from its beginning.
const fn whole(form: Form) -> ReadOptions {
    ReadOptions { form, offset: 0, length: None, compress: true, follow: None, resume: None }
}

fn as_artifact(error: ExtensionError) -> ArtifactError {
    match error {
        ExtensionError::Refused(failure) => match failure.code {
            // What version 1 calls so.
            FailureCode::NotFound | FailureCode::NotAFile | FailureCode::PermissionDenied => {
                ArtifactError::NotFound
            }
            _ => ArtifactError::Refused(failure),
        },
        ExtensionError::Invalid(cause) => ArtifactError::Damaged(cause),
        ExtensionError::TooLarge(_) => ArtifactError::Storage(error.into()),
        ExtensionError::Source(cause) => ArtifactError::Storage(cause),
        ExtensionError::Action(error) => ArtifactError::Action(error),
        ExtensionError::Unsupported(_) | ExtensionError::TooLong => {
            ArtifactError::Action(ActionError::Transport(TransportError::Closed))
        }
    }
}
