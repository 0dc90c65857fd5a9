//! The conversation with the service, one request at a time.
//!
//! Owns the end-points and what their answers mean. Every request has a
//! connection of its own, which is driven inside the request's future: dropping the future
//! cuts the connection, and one request that is stuck never holds up another. Where the host has
//! announced it, a connection that is over with its request is kept for the next one.
//!
//! A request is given up when no byte has moved in either direction for its patience; the
//! log alone has endless patience, because a host that does not read is back-pressure.
//! There TCP keep-alive notices a host that is gone.

pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod host;
pub(crate) mod stream;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use bytes::Bytes;
use http_body::Body as _;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    SEC_WEBSOCKET_PROTOCOL, WARNING,
};
use hyper::{Method, Request, StatusCode};
use metaservice_protocol::header::{
    AGENT_HEADER, CLAIM_HEADER, ERROR_HEADER, FAILURE_HEADER, FILE_HEADER, FILE_NOT_FOUND,
    JSON_LINES_TYPE, LOG_HEADER, RESULT_HEADER, SERVICE_HEADER, SESSION_HEADER, SHELL1_PROTOCOL,
    SHELL2_PROTOCOL, TRANSFER_TYPE,
};
use metaservice_protocol::limits::{
    MAX_ACTION, POLL_TIMEOUT, SHELL_BLOCK, SHELL_HANDSHAKE_TIMEOUT, SHELL_READ, STALL_TIMEOUT,
};
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{
    ActionId, AgentInfo, Capabilities, Ending, Endpoint, ErrorBody, Execute, Failure, FileHead,
    LogPlace, PollAnswer, Renewal, ServiceInfo, SessionGrant,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;

use crate::client::body::Body;
use crate::client::connection::{Answer, Connection, Kept, MAX_ANSWER, Patience, connect};
use crate::client::host::Host;

/// How long a poll may go without a byte: a little more than the host may take.
const POLL_PATIENCE: Duration = POLL_TIMEOUT.saturating_add(Duration::from_secs(15));

/// The largest payload of [`Execute`].
const MAX_EXECUTE: usize = 16 * 1024 * 1024;

/// How long a host may take nothing of a numbered log before another connection is tried. It
/// may be busy, and it may be gone without a word.
const LOG_PATIENCE: Duration = Duration::from_secs(300);

/// A request that did not get the answer it was made for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came over it was not HTTP.
    #[error("the connection failed")]
    Transport(#[from] hyper::Error),
    /// The service went silent.
    #[error("no answer for {} s", .0.as_secs())]
    Silent(Duration),
    /// The service answered with a status that is not success.
    #[error("the service answered {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Status {
        /// The status.
        status: u16,
        /// The service's own words, if it sent any; cleared of control characters.
        message: String,
    },
    /// The answer is larger than any answer has to be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The answer is not the JSON that was expected.
    #[error("the answer cannot be read")]
    Payload(#[from] serde_json::Error),
    /// A shell's websocket could not be opened.
    #[error("the websocket handshake failed")]
    Handshake(#[source] Box<tungstenite::Error>),
}

impl ClientError {
    /// Whether the connection is to blame, and not what was said over it.
    pub(crate) const fn is_transport(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Transport(_) | Self::Silent(_))
            || matches!(self, Self::Handshake(error) if !matches!(**error, tungstenite::Error::Http(_)))
    }

    /// Whether the connection broke, as one does that the host has closed meanwhile.
    const fn is_cut(&self) -> bool {
        matches!(self, Self::Transport(_))
    }

    /// The status, if the service answered at all.
    pub(crate) const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// What a get-artifact or list-folder reply carries besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyBody {
    /// Bytes, or nothing.
    Plain,
    /// JSON.
    Json,
    /// The header that says that there is no such file.
    FileNotFound,
    /// Extension: lines of JSON.
    Lines,
    /// Extension: a transfer of this.
    Transfer(FileHead),
}

impl ReplyBody {
    /// How long the reply may stand still. A version 1 host takes what it asked for; one that
    /// reads at its leisure is waited for while its connection lives.
    const fn patience(self) -> Option<Duration> {
        match self {
            Self::Plain | Self::Json | Self::FileNotFound => Some(STALL_TIMEOUT.saturating_mul(2)),
            Self::Lines | Self::Transfer(_) => None,
        }
    }
}

/// The way to the service. Clones share it; dropping any of its futures cuts the connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    host: Arc<Host>,
    announcement: HeaderValue,
    /// What the host has announced last.
    service: Arc<Mutex<ServiceInfo>>,
    /// What proves that the job is ours.
    session: Arc<Mutex<Option<HeaderValue>>>,
    kept: Arc<Kept>,
    /// The connection of the last poll: a host that serves nothing else on it needs little for it.
    polled: Arc<Kept>,
}

impl Client {
    pub(crate) fn new(host: Host) -> Self {
        let announcement = HeaderValue::try_from(announcement().to_header());
        Self {
            host: Arc::new(host),
            // What the header is made of is printable ASCII.
            announcement: announcement.unwrap_or(HeaderValue::from_static("{}")),
            service: Arc::default(),
            session: Arc::default(),
            kept: Arc::default(),
            polled: Arc::default(),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// What to run.
    pub(crate) async fn execute(&self) -> Result<Execute, ClientError> {
        let request = self.announcing(Endpoint::Execute);
        let answer = self.exchange(request, Some(STALL_TIMEOUT), MAX_EXECUTE).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// The next action.
    pub(crate) async fn poll(&self) -> Result<PollAnswer, ClientError> {
        let request = self.announcing(Endpoint::Poll);
        let patience = Patience { time: Some(POLL_PATIENCE), most: MAX_ACTION };
        let answer = self.exchange_on(&self.polled, request, patience).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// What is new, once there is a job: waits for as long as the connection lives.
    pub(crate) async fn renewal(&self) -> Result<Renewal, ClientError> {
        let request = self.announcing(Endpoint::Renewal);
        let answer = self.exchange(request, None, MAX_ANSWER).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Resolves the job.
    pub(crate) async fn report(&self, ending: &Ending) -> Result<(), ClientError> {
        let endpoint = if ending.is_success() { Endpoint::Success } else { Endpoint::Failed };
        let mut request = self.request(&Method::PUT, endpoint.path(), Body::empty());
        if let Ok(value) = ending.to_header().try_into() {
            request.headers_mut().insert(header(RESULT_HEADER), value);
        }
        self.exchange(request, Some(STALL_TIMEOUT), MAX_ANSWER).await.map(drop)
    }

    /// Answers an action.
    pub(crate) async fn reply(
        &self,
        id: &ActionId,
        kind: ReplyBody,
        body: Body,
    ) -> Result<(), ClientError> {
        let path = format!("{}?id={id}", Endpoint::Reply.path());
        let mut request = self.request(&Method::POST, &path, body);
        let (name, value) = match kind {
            ReplyBody::Plain => (CONTENT_TYPE, "application/octet-stream"),
            ReplyBody::Json => (CONTENT_TYPE, "application/json"),
            ReplyBody::FileNotFound => (header(ERROR_HEADER), FILE_NOT_FOUND),
            ReplyBody::Lines => (CONTENT_TYPE, JSON_LINES_TYPE),
            ReplyBody::Transfer(_) => (CONTENT_TYPE, TRANSFER_TYPE),
        };
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        if let ReplyBody::Transfer(head) = kind
            && let Ok(value) = HeaderValue::try_from(head.to_header())
        {
            request.headers_mut().insert(header(FILE_HEADER), value);
        }
        self.exchange(request, kind.patience(), MAX_ANSWER).await.map(drop)
    }

    /// Extension: answers an action by saying why it is not done.
    pub(crate) async fn refuse(&self, id: &ActionId, failure: &Failure) -> Result<(), ClientError> {
        let path = format!("{}?id={id}", Endpoint::Reply.path());
        let mut request = self.request(&Method::POST, &path, Body::empty());
        if let Ok(value) = HeaderValue::try_from(failure.to_header()) {
            request.headers_mut().insert(header(FAILURE_HEADER), value);
        }
        self.exchange(request, Some(STALL_TIMEOUT), MAX_ANSWER).await.map(drop)
    }

    /// What the host has announced last; of one of version 1 nothing.
    pub(crate) fn service(&self) -> ServiceInfo {
        lock(&self.service).clone()
    }

    /// Whether the host takes one request after another on a connection.
    pub(crate) fn keeps_connections(&self) -> bool {
        lock(&self.service).keep_alive
    }

    /// Claims the job by a word that nobody else knows.
    pub(crate) async fn claim(&self, nonce: &ActionId) -> Result<SessionGrant, ClientError> {
        let mut request = self.request(&Method::PUT, Endpoint::Session.path(), Body::empty());
        if let Ok(mut value) = HeaderValue::try_from(nonce.as_str()) {
            value.set_sensitive(true);
            request.headers_mut().insert(header(CLAIM_HEADER), value);
        }
        let answer = self.exchange(request, Some(STALL_TIMEOUT), MAX_EXECUTE).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Speaks for the job with this secret from now on, or without one.
    pub(crate) fn set_session(&self, secret: Option<&str>) {
        let mut value = secret.and_then(|secret| HeaderValue::try_from(secret).ok());
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        *lock(&self.session) = value;
    }

    fn session(&self) -> Option<HeaderValue> {
        lock(&self.session).clone()
    }

    /// Whether it speaks with a secret.
    pub(crate) fn has_session(&self) -> bool {
        self.session().is_some()
    }

    /// Sends a part of a numbered log.
    pub(crate) async fn log_at(&self, place: &LogPlace, body: Body) -> Result<(), ClientError> {
        let mut request = self.request(&Method::POST, Endpoint::Log.path(), body);
        if let Ok(value) = HeaderValue::try_from(place.to_header()) {
            request.headers_mut().insert(header(LOG_HEADER), value);
        }
        self.exchange(request, Some(LOG_PATIENCE), MAX_ANSWER).await.map(drop)
    }

    /// Sends one log stream, for as long as it takes.
    pub(crate) async fn log(&self, body: Body) -> Result<(), ClientError> {
        let request = self.request(&Method::POST, Endpoint::Log.path(), body);
        self.exchange(request, None, MAX_ANSWER).await.map(drop)
    }

    /// Opens the websocket of a stream, of stream protocol v2 where the host wants it.
    pub(crate) async fn stream(
        &self,
        id: &ActionId,
    ) -> Result<(WebSocketStream<TcpStream>, StreamProtocol), ClientError> {
        let handshake = async {
            let stream = connect(&self.host).await?;
            let failed = |error| ClientError::Handshake(Box::new(error));
            let uri = format!("ws://{}{}?id={id}", self.host.authority(), Endpoint::Reply.path());
            let mut request = uri.into_client_request().map_err(failed)?;
            // Only a host that knows the names is offered them: one of version 1 sees nothing new.
            let offer = self.service().shell2;
            let names = format!("{SHELL2_PROTOCOL}, {SHELL1_PROTOCOL}");
            if offer && let Ok(names) = HeaderValue::try_from(names) {
                request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, names);
            }
            if let Some(session) = self.session() {
                request.headers_mut().insert(header(SESSION_HEADER), session);
            }
            let most = if offer { StreamProtocol::V2 } else { StreamProtocol::V1 }.message();
            let config = WebSocketConfig::default()
                .read_buffer_size(SHELL_READ)
                .write_buffer_size(SHELL_BLOCK)
                .max_message_size(Some(most))
                .max_frame_size(Some(most));
            let (socket, response) =
                tokio_tungstenite::client_async_with_config(request, stream, Some(config))
                    .await
                    .map_err(failed)?;
            let taken = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            let second = taken.is_some_and(|taken| taken == SHELL2_PROTOCOL);
            Ok((socket, if second { StreamProtocol::V2 } else { StreamProtocol::V1 }))
        };
        let result = timeout(SHELL_HANDSHAKE_TIMEOUT, handshake).await;
        result.unwrap_or(Err(ClientError::Silent(SHELL_HANDSHAKE_TIMEOUT)))
    }

    /// A request that says what this agent can do.
    fn announcing(&self, endpoint: Endpoint) -> Request<Body> {
        let mut request = self.request(&Method::GET, endpoint.path(), Body::empty());
        request.headers_mut().insert(header(AGENT_HEADER), self.announcement.clone());
        request
    }

    fn request(&self, method: &Method, path: &str, body: Body) -> Request<Body> {
        let empty = body.is_end_stream();
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        // Paths are constants, and ids hold nothing that a URI would not.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(authority) = self.host.authority().try_into() {
            headers.insert(HOST, authority);
        }
        if let Some(session) = self.session() {
            headers.insert(header(SESSION_HEADER), session);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if empty && *method != Method::GET {
            // An old host may wait for a body where none is announced.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        request
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        time: Option<Duration>,
        most: usize,
    ) -> Result<Bytes, ClientError> {
        self.exchange_on(&self.kept, request, Patience { time, most }).await
    }

    /// Makes a request, on a connection that is kept where the host keeps them.
    async fn exchange_on(
        &self,
        kept: &Kept,
        mut request: Request<Body>,
        patience: Patience,
    ) -> Result<Bytes, ClientError> {
        let announcing = request.headers().contains_key(AGENT_HEADER);
        let keeps = self.keeps_connections();
        // Only what can be sent again may meet a connection that the host has just closed.
        let again = request.body().whole().filter(|_| keeps).map(Body::Whole);
        if let Some(body) = again {
            request.headers_mut().remove(CONNECTION);
            if let Some(mut connection) = kept.take().await {
                let (parts, whole) = request.into_parts();
                let first = Request::from_parts(parts.clone(), body);
                match connection.exchange(first, patience).await {
                    Ok(answer) => {
                        let kept = Some((kept, connection));
                        return self.conclude(answer, announcing, kept).await;
                    }
                    Err(error) if !error.is_cut() => return Err(error),
                    Err(_cut) => {}
                }
                request = Request::from_parts(parts, whole);
            }
        }
        let mut connection = Connection::open(&self.host).await?;
        let keep = !request.headers().contains_key(CONNECTION);
        let answer = connection.exchange(request, patience).await?;
        self.conclude(answer, announcing, keep.then_some((kept, connection))).await
    }

    /// What an answer means, and whether its connection is kept.
    async fn conclude(
        &self,
        answer: Answer,
        announcing: bool,
        keep: Option<(&Kept, Connection)>,
    ) -> Result<Bytes, ClientError> {
        if announcing {
            let service = answer.headers.get(SERVICE_HEADER);
            let service = service.and_then(|value| ServiceInfo::from_header(value.to_str().ok()?));
            let mut known = lock(&self.service);
            *known = service.unwrap_or_default();
        }
        if answer.status != StatusCode::OK {
            let body = answer.body.as_deref().unwrap_or_default();
            return Err(refusal(answer.status.as_u16(), body));
        }
        let body = answer.body?;
        if let Some((kept, connection)) = keep {
            kept.put(connection).await;
        }
        Ok(body)
    }
}

fn announcement() -> AgentInfo {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    AgentInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        kernel,
        capabilities: Capabilities::all(),
    }
}

/// The protocol crate writes names as people do; HTTP's library wants them small.
fn header(name: &str) -> HeaderName {
    // The fallback is for a name that is no header name, which a test rules out.
    HeaderName::from_bytes(name.as_bytes()).unwrap_or(WARNING)
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    let message = serde_json::from_slice(body).map_or(String::new(), |body: ErrorBody| {
        body.message.chars().filter(|c| !c.is_control()).take(300).collect()
    });
    ClientError::Status { status, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_services_words_and_no_escapes() {
        let error = refusal(500, br#"{"code":"InternalError","message":"disk \u001b[31mfull"}"#);
        assert_eq!(error.to_string(), "the service answered 500: disk [31mfull");
        assert_eq!(refusal(404, b"<html>").to_string(), "the service answered 404");
        assert_eq!(refusal(404, b"").status(), Some(404));
    }

    #[test]
    fn the_protocols_headers_are_header_names() {
        assert_eq!(header(ERROR_HEADER), "x-taskcluster-worker-error");
        assert_eq!(header(RESULT_HEADER), "metaservice-result");
        assert_eq!(header(AGENT_HEADER), "metaservice-agent");
        assert_eq!(header(FAILURE_HEADER), "metaservice-failure");
        assert_eq!(header(FILE_HEADER), "metaservice-file");
    }
}
