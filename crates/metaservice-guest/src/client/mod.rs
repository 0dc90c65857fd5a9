//! The client side of the protocol.
//!
//! Owns the end-points and the meaning of their responses. Each request has a connection of its
//! own, which the request's future drives: dropping the future closes the connection. If the host
//! has announced keep-alive, an idle connection is kept for the next request.
//!
//! A request fails when no byte has moved in either direction for its stall timeout. A log request
//! has a long timeout or none, because a host that does not read is back-pressure. There, TCP
//! keep-alive notices a host that is gone.

mod activity;
pub(crate) mod body;
mod connection;
pub(crate) mod error;
pub(crate) mod host;
mod pool;
pub(crate) mod retry;
pub(crate) mod stream;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    SEC_WEBSOCKET_PROTOCOL, WARNING,
};
use hyper::{Method, Request, StatusCode};
use metaservice_private::lock;
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
    ActionId, AgentInfo, Capabilities, Ending, Endpoint, Execute, Failure, FileHead, LogPlace,
    PollAnswer, Renewal, ServiceInfo, SessionGrant,
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use self::body::Body;
use self::connection::{Connection, ExchangeLimits, MAX_STATUS_BODY, ServiceResponse, connect};
use self::error::ClientError;
use self::host::Host;
use self::pool::ConnectionPool;
use self::stream::StreamSocket;

/// The stall timeout of a poll: a little longer than the host may wait.
const POLL_STALL: Duration = POLL_TIMEOUT.saturating_add(Duration::from_secs(15));

/// The largest payload of [`Execute`] in bytes.
const MAX_EXECUTE: usize = 16 * 1024 * 1024;

/// The stall timeout of a numbered log request. The host may be busy, or gone without a reset.
const LOG_STALL: Duration = Duration::from_secs(300);

/// The stall timeout of a reply that a host of version 1 has asked for.
const REPLY_STALL: Duration = STALL_TIMEOUT.saturating_mul(2);

/// What a reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyBody {
    /// Bytes, or nothing.
    Plain,
    /// JSON.
    Json,
    /// The header of version 1 that says that the file does not exist.
    FileNotFound,
    /// Extension: lines of JSON.
    Lines,
    /// Extension: a transfer with this head.
    Transfer(FileHead),
}

impl ReplyBody {
    /// The stall timeout of the reply.
    ///
    /// A host of version 1 reads what it asked for at once. Other replies go to a reader that may
    /// pause, so they wait as long as the connection lives.
    const fn stall_timeout(self) -> Option<Duration> {
        match self {
            Self::Plain | Self::Json | Self::FileNotFound => Some(REPLY_STALL),
            Self::Lines | Self::Transfer(_) => None,
        }
    }
}

/// Makes requests to the service. Clones share the session and the idle connections.
///
/// Dropping the future of a request closes its connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    host: Arc<Host>,
    announcement: HeaderValue,
    /// What the host announced last.
    service: Arc<Mutex<ServiceInfo>>,
    /// The secret that authorizes requests for the job.
    session: Arc<Mutex<Option<HeaderValue>>>,
    pool: Arc<ConnectionPool>,
    /// The connection of the last poll. A host that serves only polls on a connection needs less
    /// memory for it.
    poll_pool: Arc<ConnectionPool>,
}

impl Client {
    pub(crate) fn new(host: Host) -> Self {
        let announcement = HeaderValue::try_from(announcement().to_header());
        Self {
            host: Arc::new(host),
            // The header is printable ASCII, so the conversion succeeds.
            announcement: announcement.unwrap_or(HeaderValue::from_static("{}")),
            service: Arc::default(),
            session: Arc::default(),
            pool: Arc::default(),
            poll_pool: Arc::default(),
        }
    }

    /// A client that makes the requests of a job's supervisor. The agent makes those that announce.
    ///
    /// It takes the host for one with stream protocol v2: only such a host sends actions to which a
    /// supervisor replies.
    pub(crate) fn of_supervisor(host: Host) -> Self {
        let client = Self::new(host);
        lock(&client.service).shell2 = true;
        client
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Fetches the job.
    pub(crate) async fn execute(&self) -> Result<Execute, ClientError> {
        let request = self.announcing_request(Endpoint::Execute);
        let body = self.exchange(request, Some(STALL_TIMEOUT), MAX_EXECUTE).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits for the next action.
    pub(crate) async fn poll(&self) -> Result<PollAnswer, ClientError> {
        let request = self.announcing_request(Endpoint::Poll);
        let limits = ExchangeLimits { stall: Some(POLL_STALL), body: MAX_ACTION };
        let body = self.exchange_on(&self.poll_pool, request, limits).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits until there is a job, for as long as the connection lives. Returns what a restored
    /// machine must renew.
    pub(crate) async fn renewal(&self) -> Result<Renewal, ClientError> {
        let request = self.announcing_request(Endpoint::Renewal);
        let body = self.exchange(request, None, MAX_STATUS_BODY).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Reports the job's result.
    pub(crate) async fn report(&self, ending: &Ending) -> Result<(), ClientError> {
        let endpoint = if ending.is_success() { Endpoint::Success } else { Endpoint::Failed };
        let mut request = self.request(&Method::PUT, endpoint.path(), Body::empty());
        if let Ok(value) = ending.to_header().try_into() {
            request.headers_mut().insert(header(RESULT_HEADER), value);
        }
        self.exchange(request, Some(STALL_TIMEOUT), MAX_STATUS_BODY).await.map(drop)
    }

    /// Replies to an action.
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
        self.exchange(request, kind.stall_timeout(), MAX_STATUS_BODY).await.map(drop)
    }

    /// Extension: replies to an action that it failed.
    pub(crate) async fn reply_failure(
        &self,
        id: &ActionId,
        failure: &Failure,
    ) -> Result<(), ClientError> {
        let path = format!("{}?id={id}", Endpoint::Reply.path());
        let mut request = self.request(&Method::POST, &path, Body::empty());
        if let Ok(value) = HeaderValue::try_from(failure.to_header()) {
            request.headers_mut().insert(header(FAILURE_HEADER), value);
        }
        self.exchange(request, Some(STALL_TIMEOUT), MAX_STATUS_BODY).await.map(drop)
    }

    /// What the host announced last. A host of version 1 announces nothing.
    pub(crate) fn service(&self) -> ServiceInfo {
        lock(&self.service).clone()
    }

    /// Whether the host takes several requests on one connection.
    pub(crate) fn has_keep_alive(&self) -> bool {
        lock(&self.service).keep_alive
    }

    /// Claims the job with a nonce that only this agent knows.
    pub(crate) async fn claim(&self, nonce: &ActionId) -> Result<SessionGrant, ClientError> {
        let mut request = self.request(&Method::PUT, Endpoint::Session.path(), Body::empty());
        if let Ok(mut value) = HeaderValue::try_from(nonce.as_str()) {
            value.set_sensitive(true);
            request.headers_mut().insert(header(CLAIM_HEADER), value);
        }
        let body = self.exchange(request, Some(STALL_TIMEOUT), MAX_EXECUTE).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Sets the secret that authorizes the requests from now on; `None` removes it.
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

    pub(crate) fn has_session(&self) -> bool {
        self.session().is_some()
    }

    /// Sends a part of a numbered log.
    pub(crate) async fn log_at(&self, place: &LogPlace, body: Body) -> Result<(), ClientError> {
        let mut request = self.request(&Method::POST, Endpoint::Log.path(), body);
        if let Ok(value) = HeaderValue::try_from(place.to_header()) {
            request.headers_mut().insert(header(LOG_HEADER), value);
        }
        self.exchange(request, Some(LOG_STALL), MAX_STATUS_BODY).await.map(drop)
    }

    /// Sends a log stream of version 1, for as long as the connection lives.
    pub(crate) async fn log(&self, body: Body) -> Result<(), ClientError> {
        let request = self.request(&Method::POST, Endpoint::Log.path(), body);
        self.exchange(request, None, MAX_STATUS_BODY).await.map(drop)
    }

    /// Opens the websocket of a stream, with stream protocol v2 if the host takes it.
    pub(crate) async fn stream(&self, id: &ActionId) -> Result<StreamSocket, ClientError> {
        let handshake = async {
            let connection = connect(&self.host).await?;
            let failed = |error| ClientError::Handshake(Box::new(error));
            let uri = format!("ws://{}{}?id={id}", self.host.authority(), Endpoint::Reply.path());
            let mut request = uri.into_client_request().map_err(failed)?;
            // A host of version 1 does not know the names of subprotocols and gets none.
            let offer = self.service().shell2;
            let names = format!("{SHELL2_PROTOCOL}, {SHELL1_PROTOCOL}");
            if offer && let Ok(names) = HeaderValue::try_from(names) {
                request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, names);
            }
            if let Some(session) = self.session() {
                request.headers_mut().insert(header(SESSION_HEADER), session);
            }
            let largest = if offer { StreamProtocol::V2 } else { StreamProtocol::V1 }.message();
            let config = WebSocketConfig::default()
                .read_buffer_size(SHELL_READ)
                .write_buffer_size(SHELL_BLOCK)
                .max_message_size(Some(largest))
                .max_frame_size(Some(largest));
            let (socket, response) =
                tokio_tungstenite::client_async_with_config(request, connection, Some(config))
                    .await
                    .map_err(failed)?;
            let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            let second = chosen.is_some_and(|chosen| chosen == SHELL2_PROTOCOL);
            let version = if second { StreamProtocol::V2 } else { StreamProtocol::V1 };
            Ok(StreamSocket { socket, version })
        };
        let result = timeout(SHELL_HANDSHAKE_TIMEOUT, handshake).await;
        result.unwrap_or(Err(ClientError::Silent(SHELL_HANDSHAKE_TIMEOUT)))
    }

    /// A request with a header that announces the agent's capabilities.
    fn announcing_request(&self, endpoint: Endpoint) -> Request<Body> {
        let mut request = self.request(&Method::GET, endpoint.path(), Body::empty());
        request.headers_mut().insert(header(AGENT_HEADER), self.announcement.clone());
        request
    }

    fn request(&self, method: &Method, path: &str, body: Body) -> Request<Body> {
        let empty = body.is_end_stream();
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        // Paths are constants, and action ids contain only characters of a URI.
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
            // Without a length, an old host may wait for a body.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        request
    }

    async fn exchange(
        &self,
        request: Request<Body>,
        stall: Option<Duration>,
        body: usize,
    ) -> Result<Bytes, ClientError> {
        self.exchange_on(&self.pool, request, ExchangeLimits { stall, body }).await
    }

    /// Makes a request, on an idle connection if the host has keep-alive.
    async fn exchange_on(
        &self,
        pool: &ConnectionPool,
        mut request: Request<Body>,
        limits: ExchangeLimits,
    ) -> Result<Bytes, ClientError> {
        let announcing = request.headers().contains_key(AGENT_HEADER);
        let keep_alive = self.has_keep_alive();
        // The host may just have closed the connection. Then the request is made again, so only a
        // body that can be sent twice uses an idle connection.
        let repeatable = request.body().whole().filter(|_| keep_alive).map(Body::Whole);
        if let Some(body) = repeatable {
            request.headers_mut().remove(CONNECTION);
            if let Some(mut connection) = pool.take().await {
                let (parts, whole) = request.into_parts();
                let first = Request::from_parts(parts.clone(), body);
                match connection.exchange(first, limits).await {
                    Ok(response) => {
                        let keep = Some((pool, connection));
                        return self.conclude(response, announcing, keep).await;
                    }
                    Err(error) if !error.is_cut() => return Err(error),
                    Err(_cut) => {}
                }
                request = Request::from_parts(parts, whole);
            }
        }
        let mut connection = Connection::open(&self.host).await?;
        let keep = !request.headers().contains_key(CONNECTION);
        let response = connection.exchange(request, limits).await?;
        self.conclude(response, announcing, keep.then_some((pool, connection))).await
    }

    /// Evaluates a response, and keeps its connection if that can take another request.
    async fn conclude(
        &self,
        response: ServiceResponse,
        announcing: bool,
        keep: Option<(&ConnectionPool, Connection)>,
    ) -> Result<Bytes, ClientError> {
        if announcing {
            let service = response.headers.get(SERVICE_HEADER);
            let service = service.and_then(|value| ServiceInfo::from_header(value.to_str().ok()?));
            let mut known = lock(&self.service);
            *known = service.unwrap_or_default();
        }
        if response.status != StatusCode::OK {
            let body = response.body.as_deref().unwrap_or_default();
            return Err(ClientError::from_status(response.status.as_u16(), body));
        }
        let body = response.body?;
        if let Some((pool, connection)) = keep {
            pool.put(connection).await;
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

/// A header name of the protocol crate, which has capitals, in the form that `http` requires.
fn header(name: &str) -> HeaderName {
    // A test holds that the fallback is not needed.
    HeaderName::from_bytes(name.as_bytes()).unwrap_or(WARNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_headers_are_header_names() {
        assert_eq!(header(ERROR_HEADER), "x-taskcluster-worker-error");
        assert_eq!(header(RESULT_HEADER), "metaservice-result");
        assert_eq!(header(AGENT_HEADER), "metaservice-agent");
        assert_eq!(header(FAILURE_HEADER), "metaservice-failure");
        assert_eq!(header(FILE_HEADER), "metaservice-file");
    }
}
