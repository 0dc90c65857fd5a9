//! The client of the control API.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use metaservice_protocol::header::{SHELL1_PROTOCOL, SHELL2_PROTOCOL};
use metaservice_protocol::limits::SHELL_READ;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{Exec, Stats};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;

use super::body::{BodyReader, LogBody, LogSegments};
use super::connection::{
    ControlSocket, broken, head, no_body, read_json, read_json_within, refused, target, to_json,
};
use super::error::{ClientError, Code};
use super::log_frame::FRAMES_TYPE;
use super::model::{Described, ExecRequest, Job, KillAnswer, Killed, MISSED_HEADER, Started};
use super::paths;
use super::run::{RunRequest, RunResult};
use crate::handle::attach::JobStdin;
use crate::handle::child::command::Child;
use crate::handle::child::socket::Socket;
use crate::handle::dial::GuestStream;
use crate::handle::exec::{Command, Executor};
use crate::handle::lines::Lines;
use crate::job::log::LogFrom;

/// The longest command and environment, as JSON, that always fit into a request's target: escaped,
/// each byte has three characters.
const IN_TARGET: usize = 20 * 1024;

/// The largest answer to a command that is run in one request, in bytes: two outputs of 4 MiB, of
/// which each byte may need six.
const MAX_RUN: usize = 2 * 6 * 4 * 1024 * 1024 + 64 * 1024;

/// A job's control socket. Its calls have the names of [`MetaService`](crate::MetaService). Each
/// call makes a connection of its own. Dropping the future of a call, or what the call returned,
/// closes the connection and withdraws the request.
///
/// A call takes as long as the guest takes. While nothing arrives, the client asks now and then
/// whether the job still answers. A job that does not answer for five seconds is
/// [`Silent`](ClientError::Silent).
///
/// - *The job:* [`job`](Self::job), [`wait`](Self::wait), [`log`](Self::log),
///   [`log_segments`](Self::log_segments), [`kill`](Self::kill),
///   [`kill_machine`](Self::kill_machine), [`signal`](Self::signal), [`attach`](Self::attach),
///   [`stats`](Self::stats).
/// - *Commands:* [`exec`](Self::exec), [`run`](Self::run).
/// - *Files:* [`read`](Self::read), [`write`](Self::write), [`list`](Self::list).
/// - *Network:* [`dial`](Self::dial), [`publish`](Self::publish),
///   [`network_policy`](Self::network_policy), [`set_network_policy`](Self::set_network_policy),
///   [`network_log`](Self::network_log).
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) socket: ControlSocket,
}

impl Client {
    /// The client of the job at `socket`. It does not connect yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: ControlSocket { path: socket.into() } }
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket.path
    }

    /// The description of the job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&self) -> Result<Job, ClientError> {
        self.socket.fetch(Method::GET, paths::JOB).await
    }

    /// The description of the job, when its command has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wait(&self) -> Result<Job, ClientError> {
        self.socket.fetch(Method::GET, paths::WAIT).await
    }

    /// The description of the job, when the guest has fetched its command, or has reported a
    /// result.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wait_for_start(&self) -> Result<Job, ClientError> {
        self.socket.fetch(Method::GET, &target(paths::WAIT, &[("for", "running")])).await
    }

    /// The log, as [`MetaService::log_reader`](crate::MetaService::log_reader) reads it.
    ///
    /// # Errors
    /// [`ClientError`]. Later errors are errors of the body.
    pub async fn log(&self, from: LogFrom, follow: bool) -> Result<LogBody, ClientError> {
        let response = self.send_log(from, follow, "*/*").await?;
        Ok(self.log_body(response))
    }

    /// As [`log`](Self::log), with the output of each byte and the time at which it arrived.
    ///
    /// # Errors
    /// [`ClientError`]. Later errors are errors of the segments.
    pub async fn log_segments(
        &self,
        from: LogFrom,
        follow: bool,
    ) -> Result<LogSegments, ClientError> {
        let response = self.send_log(from, follow, FRAMES_TYPE).await?;
        let content = response.headers().get(header::CONTENT_TYPE);
        let framed = content.is_some_and(|content| content == FRAMES_TYPE);
        Ok(LogSegments::new(self.log_body(response), framed))
    }

    async fn send_log(
        &self,
        from: LogFrom,
        follow: bool,
        accept: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let (key, number) = match from {
            LogFrom::Start => ("", 0),
            LogFrom::Tail(lines) => ("tail", lines),
            LogFrom::Offset(offset) => ("offset", offset),
            LogFrom::Since(time) => {
                let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                ("sinceMs", u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let (number, follow) = (number.to_string(), follow.to_string());
        let mut query = vec![("follow", follow.as_str())];
        if !key.is_empty() {
            query.push((key, &number));
        }
        let head = head(Method::GET, &target(paths::LOG, &query)).header(header::ACCEPT, accept);
        self.socket.send(head, no_body()).await
    }

    fn log_body(&self, response: Response<Incoming>) -> LogBody {
        let missed = response.headers().get(MISSED_HEADER).and_then(|value| value.to_str().ok());
        let missed = missed.and_then(|missed| missed.parse().ok()).unwrap_or(0);
        LogBody { missed, body: BodyReader::new(response.into_body(), self.socket.clone()) }
    }

    /// As [`MetaService::kill`](crate::MetaService::kill). If the guest does not take the order
    /// within [`KILL_ORDER_TIMEOUT`](super::KILL_ORDER_TIMEOUT), the machine is ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self) -> Result<Killed, ClientError> {
        self.kill_at(paths::KILL).await
    }

    /// Ends the machine at once, without its guest. What the guest has not sent is lost.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill_machine(&self) -> Result<Killed, ClientError> {
        self.kill_at(&target(paths::KILL, &[("force", "true")])).await
    }

    async fn kill_at(&self, target: &str) -> Result<Killed, ClientError> {
        let response = self.socket.request(Method::POST, target).await?;
        // The answer of an older version.
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Killed::Command);
        }
        read_json(response).await.map(|KillAnswer { killed }| killed)
    }

    /// As [`MetaService::signal`](crate::MetaService::signal).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn signal(&self, signal: u8) -> Result<(), ClientError> {
        let target = target(paths::SIGNAL, &[("signal", &signal.to_string())]);
        self.socket.request(Method::POST, &target).await.map(drop)
    }

    /// As [`MetaService::attach`](crate::MetaService::attach).
    ///
    /// # Errors
    /// [`ClientError`]. The code is [`Busy`](Code::Busy) if another client is attached, and
    /// [`Refused`](Code::Refused) if the command has no stdin, or its stdin has ended.
    pub async fn attach(&self) -> Result<JobStdin, ClientError> {
        self.stream(paths::ATTACH).await.map(JobStdin::remote)
    }

    /// As [`MetaService::stats`](crate::MetaService::stats).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stats(&self, interval: Option<Duration>) -> Result<Lines<Stats>, ClientError> {
        let interval = interval.map(|interval| interval.as_millis().to_string());
        let query: Vec<_> =
            interval.iter().map(|interval| ("intervalMs", interval.as_str())).collect();
        self.lines(&target(paths::STATS, &query)).await
    }

    /// As [`MetaService::exec`](crate::MetaService::exec).
    pub fn exec<S: Into<String>>(&self, command: impl IntoIterator<Item = S>) -> Command<'_, Self> {
        Command::new(self, command)
    }

    /// Runs a command to its end in one request, and collects what it writes, up to 4 MiB of each
    /// output. See [`exec`](Self::exec) for its streams.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancellation
    /// Dropping the future kills the command.
    pub async fn run(&self, request: &RunRequest) -> Result<RunResult, ClientError> {
        read_json_within(self.post(paths::RUN, to_json(request)?).await?, MAX_RUN).await
    }

    /// As [`MetaService::dial`](crate::MetaService::dial).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dial(&self, host: &str, port: u16) -> Result<GuestStream, ClientError> {
        let target = target(paths::DIAL, &[("host", host), ("port", &port.to_string())]);
        self.stream(&target).await.map(GuestStream::new)
    }

    /// Describes a command, so that a stream can be requested with its id. `None` if an older
    /// version of the tool serves the job: it takes the command in the request target instead.
    async fn describe(&self, exec: &ExecRequest) -> Result<Option<String>, ClientError> {
        let json = to_json(exec)?;
        if json.len() > IN_TARGET {
            // An older version may close the connection before it has read a large body, and then
            // its response is lost. It answers this request, which has no body.
            match self.socket.request(Method::GET, paths::COMMANDS).await {
                Err(ClientError::Refused { code: Code::NoSuchEndPoint, .. }) => {
                    let message = format!(
                        "the job is served by an older metaservice, which takes a command and \
                         environment of at most {IN_TARGET} bytes"
                    );
                    return Err(ClientError::Refused { code: Code::Unsupported, message });
                }
                Ok(_) | Err(ClientError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.post(paths::COMMANDS, json).await {
            Ok(response) => read_json(response).await.map(|Described { id }| Some(id)),
            Err(ClientError::Refused { code: Code::NoSuchEndPoint, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post(&self, path: &str, json: Bytes) -> Result<Response<Incoming>, ClientError> {
        let body = Full::new(json).map_err(|never| match never {}).boxed_unsync();
        let head = head(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.socket.send(head, body).await
    }

    async fn stream(&self, target: &str) -> Result<Child, ClientError> {
        let most = StreamProtocol::V2.message();
        let config = WebSocketConfig::default()
            .read_buffer_size(SHELL_READ)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let mut request =
            format!("ws://localhost{target}").into_client_request().map_err(broken)?;
        let offer = format!("{SHELL2_PROTOCOL}, {SHELL1_PROTOCOL}");
        let offer = HeaderValue::try_from(offer).map_err(broken)?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offer);
        let handshake = async {
            let stream = self.socket.connect().await?;
            let connected =
                tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
            match connected {
                Err(tungstenite::Error::Http(response)) => {
                    let body = response.body().as_deref().unwrap_or_default();
                    Err(refused(response.status(), body))
                }
                connected => connected.map_err(broken),
            }
        };
        let (socket, response) = self.socket.attended(handshake).await?;
        let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        let v2 = protocol.is_some_and(|protocol| protocol == SHELL2_PROTOCOL);
        let protocol = if v2 { StreamProtocol::V2 } else { StreamProtocol::V1 };
        // A client is never shut down: its streams end with their connections.
        let (_, never) = watch::channel(false);
        Ok(Child::start(Socket::from_tungstenite(socket), protocol, never))
    }

    pub(super) async fn lines<T>(&self, target: &str) -> Result<Lines<T>, ClientError>
    where
        T: DeserializeOwned + 'static,
    {
        let response = self.socket.request(Method::GET, target).await?;
        let body = BodyReader::new(response.into_body(), self.socket.clone());
        Ok(Lines::from_body(axum::body::Body::from_stream(body.into_stream())))
    }
}

impl Executor for Client {
    type Error = ClientError;

    async fn start(&self, exec: Exec) -> Result<Child, ClientError> {
        let exec = ExecRequest::from(exec);
        match self.describe(&exec).await? {
            Some(id) => self.stream(&target(paths::EXEC, &[("id", &id)])).await,
            None => {
                let exec = serde_json::to_string(&exec).map_err(broken)?;
                self.stream(&target(paths::EXEC, &[("exec", &exec)])).await
            }
        }
    }

    async fn start_detached(&self, exec: Exec) -> Result<u32, ClientError> {
        let json = to_json(&ExecRequest::from(exec))?;
        let Started { pid } = read_json(self.post(paths::EXEC, json).await?).await?;
        Ok(pid)
    }
}
