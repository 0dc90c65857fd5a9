//! The calling end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream;
use http::request::Builder;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metaservice_protocol::header::{SHELL1_PROTOCOL, SHELL2_PROTOCOL};
use metaservice_protocol::limits::SHELL_READ;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{DirectoryEntry, Exec, FileHead, Form, Stats};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;

use super::body::{BodyReader, LogBody};
use super::{
    Code, Described, ExecRequest, FILE_HEADER, Job, MISSED_HEADER, Problem, Started, Written,
};
use crate::handle::actions::{Destination, Dialled, Lines};
use crate::handle::shell::{Shell, Wire};
use crate::job::log::LogFrom;

/// The largest answer that is kept in memory: a list of files is at most 10 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The longest command and environment, as JSON, that fit into a request's target whatever is in
/// them: three characters for each byte.
const IN_TARGET: usize = 20 * 1024;

/// When a job of which nothing comes is asked whether it is there: first and, twice as long after
/// each question, at last; and how long it may take to answer.
const FIRST_QUESTION: Duration = Duration::from_secs(1);
const LAST_QUESTION: Duration = Duration::from_secs(16);
const ANSWER: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// Why a call has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("cannot reach the job at {}", .0.display())]
    Unreachable(PathBuf, #[source] io::Error),
    /// The job was reached and refused.
    #[error("{message}")]
    Refused {
        /// The word for programs.
        code: Code,
        /// The sentence for people.
        message: String,
    },
    /// The process that serves the job is there and does nothing: it is stopped, or stuck.
    #[error("the job at {} does not answer: its process is stopped or stuck", .0.display())]
    Silent(PathBuf),
    /// The connection to the job broke.
    #[error("the connection to the job broke")]
    Connection(#[source] BoxError),
    /// What was fetched cannot be written.
    #[error("cannot write what was fetched")]
    Write(#[source] io::Error),
}

impl ClientError {
    /// The job's word for a refusal.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<Problem> for ClientError {
    fn from(Problem { code, message }: Problem) -> Self {
        Self::Refused { code, message }
    }
}

fn broken(error: impl Into<BoxError>) -> ClientError {
    ClientError::Connection(error.into())
}

/// A job's control socket. Every call makes a connection of its own; dropping the
/// future of a call, or what it returned, closes it, which withdraws what was asked.
///
/// A call takes as long as the guest does. While nothing comes, the job is asked now and then
/// whether it is there: one that does not answer for five seconds is [`Silent`](ClientError::Silent).
///
/// *The job:* [`job`](Self::job), [`wait`](Self::wait), [`log`](Self::log), [`kill`](Self::kill),
/// [`signal`](Self::signal), [`stats`](Self::stats). *Commands:* [`exec`](Self::exec),
/// [`exec_detached`](Self::exec_detached), [`exec_shell`](Self::exec_shell). *Files:*
/// [`list`](Self::list), [`list_folder`](Self::list_folder), [`read`](Self::read),
/// [`write`](Self::write), [`get_artifact`](Self::get_artifact). *Network:* [`dial`](Self::dial).
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The client of the job behind `socket`. Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What is to be told of the job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job(&self) -> Result<Job, ClientError> {
        self.fetch(Method::GET, "/v1/job").await
    }

    /// The job, once its command has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wait(&self) -> Result<Job, ClientError> {
        self.fetch(Method::GET, "/v1/wait").await
    }

    /// What is kept of the log, as [`MetaService::log_reader`](crate::MetaService::log_reader).
    ///
    /// # Errors
    /// [`ClientError`]; later ones come out of the body.
    pub async fn log(&self, from: LogFrom, follow: bool) -> Result<LogBody, ClientError> {
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
        let response = self.request(Method::GET, &target("log", &query)).await?;
        let missed = response.headers().get(MISSED_HEADER).and_then(|value| value.to_str().ok());
        let missed = missed.and_then(|missed| missed.parse().ok()).unwrap_or(0);
        Ok(LogBody { missed, body: BodyReader::new(response.into_body(), self.clone()) })
    }

    /// As [`MetaService::kill_process`](crate::MetaService::kill_process).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self) -> Result<(), ClientError> {
        self.request(Method::POST, "/v1/kill").await.map(drop)
    }

    /// As [`MetaService::signal`](crate::MetaService::signal).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn signal(&self, signal: u8) -> Result<(), ClientError> {
        let target = target("signal", &[("signal", &signal.to_string())]);
        self.request(Method::POST, &target).await.map(drop)
    }

    /// As [`MetaService::stats`](crate::MetaService::stats).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stats(&self, interval: Option<Duration>) -> Result<Lines<Stats>, ClientError> {
        let interval = interval.map(|interval| interval.as_millis().to_string());
        let query: Vec<_> =
            interval.iter().map(|interval| ("intervalMs", interval.as_str())).collect();
        self.lines(&target("stats", &query)).await
    }

    /// As [`MetaService::list_folder`](crate::MetaService::list_folder).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_folder(&self, path: &str) -> Result<Vec<String>, ClientError> {
        self.fetch(Method::GET, &target("files", &[("path", path)])).await
    }

    /// As [`MetaService::list`](crate::MetaService::list).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(
        &self,
        path: &str,
        recursive: bool,
    ) -> Result<Lines<DirectoryEntry>, ClientError> {
        let recursive = recursive.to_string();
        self.lines(&target("entries", &[("path", path), ("recursive", &recursive)])).await
    }

    /// Writes a file of the guest's to `to`; returns its length in bytes.
    ///
    /// # Errors
    /// [`ClientError`]; then `to` may have got a part.
    pub async fn get_artifact(
        &self,
        path: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, ClientError> {
        let response = self.request(Method::GET, &target("artifact", &[("path", path)])).await?;
        let mut body = BodyReader::new(response.into_body(), self.clone());
        let mut length = 0;
        while let Some(data) = body.chunk().await.map_err(from_body)? {
            length += data.len() as u64;
            to.write_all(&data).await.map_err(ClientError::Write)?;
        }
        to.flush().await.map_err(ClientError::Write)?;
        Ok(length)
    }

    /// As [`MetaService::read`](crate::MetaService::read): the attributes, and the bytes.
    ///
    /// # Errors
    /// [`ClientError`]; later ones come out of the body.
    pub async fn read(
        &self,
        path: &str,
        form: Form,
    ) -> Result<(FileHead, BodyReader), ClientError> {
        self.read_by(&target("read", &[("path", path), ("form", form_word(form))])).await
    }

    /// As [`MetaService::read_link`](crate::MetaService::read_link). A job that is served by an older
    /// version follows links as [`read`](Self::read) does.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_link(
        &self,
        path: &str,
        form: Form,
        follow: bool,
    ) -> Result<(FileHead, BodyReader), ClientError> {
        let word = follow.to_string();
        let query = [("path", path), ("form", form_word(form)), ("follow", &*word)];
        match self.read_by(&target("read", &query)).await {
            Err(ClientError::Refused { code: Code::InvalidRequest, message })
                if message.contains("follow") =>
            {
                self.read(path, form).await
            }
            outcome => outcome,
        }
    }

    async fn read_by(&self, target: &str) -> Result<(FileHead, BodyReader), ClientError> {
        // What goes wrong in the midst of the body is told behind it.
        let head = head(Method::GET, target).header(header::TE, "trailers");
        let response = self.send(head.header(header::CONNECTION, "TE"), no_body()).await?;
        let head = response.headers().get(FILE_HEADER).and_then(|value| value.to_str().ok());
        let head = head.and_then(FileHead::from_header);
        let head = head.ok_or_else(|| broken("the job sent a file without its attributes"))?;
        Ok((head, BodyReader::new(response.into_body(), self.clone())))
    }

    /// As [`MetaService::write`](crate::MetaService::write).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn write<R>(&self, destination: Destination, source: R) -> Result<u64, ClientError>
    where
        R: AsyncRead + Send + 'static,
    {
        let Destination { path, name, form, mode, mtime_ns, set_id } = destination;
        let (mode, mtime) = (mode.map(|m| m.to_string()), mtime_ns.map(|m| m.to_string()));
        let mut query = vec![("path", path.as_str()), ("form", form_word(form))];
        query.extend(name.as_deref().map(|name| ("name", name)));
        query.extend(mode.as_deref().map(|mode| ("mode", mode)));
        query.extend(mtime.as_deref().map(|mtime| ("mtimeNs", mtime)));
        // A job of an older version takes no word that it does not know.
        query.extend(set_id.then_some(("setId", "true")));
        let chunks = tokio_util::io::ReaderStream::with_capacity(source, 256 * 1024);
        let frames = futures_util::StreamExt::map(chunks, |chunk| chunk.map(Frame::data));
        let body = StreamBody::new(frames).boxed_unsync();
        let response = self.send(head(Method::PUT, &target("write", &query)), body).await?;
        let Written { length } = read_json(response).await?;
        Ok(length)
    }

    /// As [`MetaService::exec`](crate::MetaService::exec).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exec(&self, exec: Exec) -> Result<Shell, ClientError> {
        let exec = ExecRequest::from(exec);
        match self.describe(&exec).await? {
            Some(id) => self.stream(&target("exec", &[("id", &id)])).await,
            None => {
                let exec = serde_json::to_string(&exec).map_err(broken)?;
                self.stream(&target("exec", &[("exec", &exec)])).await
            }
        }
    }

    /// As [`MetaService::exec_detached`](crate::MetaService::exec_detached).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exec_detached(&self, exec: Exec) -> Result<u32, ClientError> {
        let json = to_json(&ExecRequest::from(exec))?;
        let Started { pid } = read_json(self.post("/v1/exec", json).await?).await?;
        Ok(pid)
    }

    /// Describes a command, so that a stream can be asked for by its id. `None` where the job does
    /// not know that: it is served by an older version, which wants the command in the target.
    async fn describe(&self, exec: &ExecRequest) -> Result<Option<String>, ClientError> {
        const PATH: &str = "/v1/commands";
        let json = to_json(exec)?;
        if json.len() > IN_TARGET {
            // A body that nobody reads could cost the answer; this is answered by every version.
            match self.request(Method::GET, PATH).await {
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
        match self.post(PATH, json).await {
            Ok(response) => read_json(response).await.map(|Described { id }| Some(id)),
            Err(ClientError::Refused { code: Code::NoSuchEndPoint, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post(&self, path: &str, json: Bytes) -> Result<Response<Incoming>, ClientError> {
        let body = Full::new(json).map_err(|never| match never {}).boxed_unsync();
        let head = head(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.send(head, body).await
    }

    /// As [`MetaService::exec_shell`](crate::MetaService::exec_shell).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn exec_shell(&self, command: &[String], tty: bool) -> Result<Shell, ClientError> {
        let exec = ExecRequest { command: command.to_vec(), tty, ..ExecRequest::default() };
        if let Some(id) = self.describe(&exec).await? {
            return self.stream(&target("shell", &[("id", &id)])).await;
        }
        let command = serde_json::to_string(command).map_err(broken)?;
        let tty = tty.to_string();
        self.stream(&target("shell", &[("command", &command), ("tty", &tty)])).await
    }

    /// As [`MetaService::dial`](crate::MetaService::dial).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dial(&self, host: &str, port: u16) -> Result<Dialled, ClientError> {
        let target = target("dial", &[("host", host), ("port", &port.to_string())]);
        self.stream(&target).await.map(Dialled::new)
    }

    async fn stream(&self, target: &str) -> Result<Shell, ClientError> {
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
        let shake_hands = async {
            let stream = self.connect().await?;
            let shaken =
                tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
            match shaken {
                Err(tungstenite::Error::Http(response)) => {
                    let body = response.body().as_deref().unwrap_or_default();
                    Err(refused(response.status(), body))
                }
                shaken => shaken.map_err(broken),
            }
        };
        let (socket, response) = self.attended(shake_hands).await?;
        let taken = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        let second = taken.is_some_and(|taken| taken == SHELL2_PROTOCOL);
        let protocol = if second { StreamProtocol::V2 } else { StreamProtocol::V1 };
        // A client is never shut down: its shells end with their connections.
        let (_, never) = watch::channel(false);
        Ok(Shell::start(Wire::from_tungstenite(socket), protocol, never))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map_err(|error| match error.kind() {
            // So many wait to be accepted that no more find room.
            io::ErrorKind::WouldBlock => ClientError::Silent(self.socket.clone()),
            _ => ClientError::Unreachable(self.socket.clone(), error),
        })
    }

    /// Works on a call for as long as the job is there.
    async fn attended<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::select! {
            biased;
            done = work => done,
            silent = self.clone().silence() => Err(silent),
        }
    }

    /// Completes when the job does not answer any longer. One that is gone is noticed by the call
    /// that waits for it.
    pub(super) async fn silence(self) -> ClientError {
        let mut pause = FIRST_QUESTION;
        loop {
            tokio::time::sleep(pause).await;
            pause = LAST_QUESTION.min(pause * 2);
            let question = self.exchange(head(Method::GET, "/v1/job"), no_body());
            if tokio::time::timeout(ANSWER, question).await.is_err() {
                return ClientError::Silent(self.socket);
            }
        }
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        self.send(head(method, target), no_body()).await
    }

    async fn send(
        &self,
        head: Builder,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ClientError> {
        self.attended(self.exchange(head, body)).await
    }

    async fn exchange(
        &self,
        head: Builder,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = head.body(body).map_err(broken)?;
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        // The connection ends with the request that it is for.
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let refusal = refused(status, &read_all(response).await?);
        // What of the body was not sent is not wanted.
        connection.abort();
        Err(refusal)
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
    ) -> Result<T, ClientError> {
        let work = async { read_json(self.exchange(head(method, target), no_body()).await?).await };
        self.attended(work).await
    }

    async fn lines<T: DeserializeOwned>(&self, target: &str) -> Result<Lines<T>, ClientError> {
        let response = self.request(Method::GET, target).await?;
        let body = BodyReader::new(response.into_body(), self.clone());
        let chunks = stream::try_unfold(body, async |mut body| {
            io::Result::Ok(body.chunk().await?.map(|chunk| (chunk, body)))
        });
        Ok(Lines::from_body(axum::body::Body::from_stream(chunks)))
    }
}

/// What went wrong with a body, as the job says it where it does.
fn from_body(error: io::Error) -> ClientError {
    error.downcast::<ClientError>().unwrap_or_else(broken)
}

fn head(method: Method, target: &str) -> Builder {
    Request::builder().method(method).uri(target).header(header::HOST, "localhost")
}

fn no_body() -> RequestBody {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

const fn form_word(form: Form) -> &'static str {
    match form {
        Form::File => "file",
        Form::Archive => "archive",
        Form::Any => "any",
    }
}

fn to_json(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(broken)
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    serde_json::from_slice(&read_all(response).await?).map_err(broken)
}

async fn read_all(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(broken)?.to_bytes())
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.into(),
        Err(_) => broken(format!("the job answered {status}")),
    }
}

/// A request target with its query escaped (RFC 3986 section 2.1).
fn target(name: &str, query: &[(&str, &str)]) -> String {
    let mut target = format!("/v1/{name}");
    for (n, (key, value)) in query.iter().enumerate() {
        target += if n == 0 { "?" } else { "&" };
        target += key;
        target.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                target.push(char::from(byte));
            } else {
                target += &format!("%{byte:02X}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_query_keeps_what_it_is_given() {
        let target = target("files", &[("path", "/a b&c=ä/%\n"), ("tty", "true")]);
        assert_eq!(target, "/v1/files?path=/a%20b%26c%3D%C3%A4/%25%0A&tty=true");
    }
}
