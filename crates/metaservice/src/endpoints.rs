//! The end-points of version 1, to the letter.
//!
//! One dispatcher compares path and method exactly, instead of a routing table that
//! knows HTTP better than the protocol does: a HEAD of `poll`, for instance, must not
//! take an action along. Handlers translate between HTTP and the job; they decide nothing.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use metaservice_protocol::endpoint::{
    AGENT_HEADER, CLAIM_HEADER, ERROR_HEADER, FAILURE_HEADER, FILE_HEADER, FILE_NOT_FOUND,
    LOG_HEADER, RESULT_HEADER, SERVICE_HEADER, SESSION_HEADER, SHELL_PROTOCOL, SHELL1_PROTOCOL,
};
use metaservice_protocol::limits::{
    MAX_FILES_BYTES, MAX_LINE, SHELL_HANDSHAKE_TIMEOUT, STALL_TIMEOUT,
};
use metaservice_protocol::shell::Dialect;
use metaservice_protocol::{
    Action, ActionId, Agent, Ending, Endpoint, ErrorBody, ErrorCode, Failure, FileHead, Files,
    LogPlace, Request as Asked, Service,
};

use tokio::sync::oneshot;

use crate::MetaService;
use crate::actions::{Outcome, Reply};
use crate::artifact::{ReceiveError, next_chunk, receive};
use crate::connection::{AnswerBody, Outbox};
use crate::error::{ArtifactError, TransportError};
use crate::extension::Incoming;
use crate::log::{Misplaced, Untaken};
use crate::origin;
use crate::queue::Refusal;
use crate::result::JobResult;
use crate::service::new_id;
use crate::state::Promised;

const CONTENT_TYPE_JSON: (header::HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The service's end-points.
pub(crate) fn router(service: MetaService) -> Router {
    Router::new().fallback(dispatch).with_state(service)
}

/// What a request is refused with.
struct Refused {
    code: ErrorCode,
    message: String,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unknown_action() -> Self {
        Self::new(
            ErrorCode::UnknownActionId,
            "no action of this id is pending: it was never issued, has timed out, or is answered",
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = ErrorBody { code: self.code, message: self.message };
        let status = StatusCode::from_u16(self.code.status());
        json(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
    }
}

async fn dispatch(
    State(service): State<MetaService>,
    outbox: Option<Extension<Outbox>>,
    request: Request,
) -> Result<Response, Refused> {
    let path = request.uri().path();
    let Some(endpoint) = Endpoint::from_path(path) else {
        return Err(Refused::new(ErrorCode::NoSuchEndPoint, "nothing is served at this path"));
    };
    if !endpoint.allows(request.method().as_str()) {
        let message = format!("{endpoint:?} is not used by this method");
        return Err(Refused::new(ErrorCode::MethodNotAllowed, message));
    }
    origin::check(request.headers(), &service.0.host_names)
        .map_err(|message| Refused::new(ErrorCode::Forbidden, message))?;
    if endpoint != Endpoint::Ping && endpoint != Endpoint::Session && !admits(&service, &request) {
        let message = "this job's session is another's, or it has to be claimed first";
        let refused = Refused::new(ErrorCode::SessionRequired, message).into_response();
        let agent = announced(request.headers());
        return Ok(say_who_we_are(&service, agent.as_ref(), refused));
    }
    match endpoint {
        Endpoint::Execute => execute(&service, request.headers()).await,
        Endpoint::Log => log(&service, request).await,
        Endpoint::Success => resolve(&service, true, request.headers()).await,
        Endpoint::Failed => resolve(&service, false, request.headers()).await,
        Endpoint::Poll => {
            let outbox = outbox.map(|Extension(outbox)| outbox);
            Ok(poll(&service, request.headers(), outbox).await)
        }
        Endpoint::Reply => reply(&service, request).await,
        Endpoint::ListFolder => list_folder(&service, request).await,
        Endpoint::Ping => Ok(StatusCode::OK.into_response()),
        Endpoint::Session => claim(&service, request.headers()).await,
    }
}

fn admits(service: &MetaService, request: &Request) -> bool {
    let secret = request.headers().get(SESSION_HEADER).and_then(|value| value.to_str().ok());
    service.0.session.admits(secret)
}

async fn claim(service: &MetaService, headers: &HeaderMap) -> Result<Response, Refused> {
    let session = &service.0.session;
    let Some(nonce) = headers.get(CLAIM_HEADER).filter(|_| session.is_offered()) else {
        // As to a guest of version 1.
        return Err(Refused::new(ErrorCode::NoSuchEndPoint, "nothing is served at this path"));
    };
    let nonce = nonce.to_str().ok().and_then(|nonce| ActionId::parse(nonce).ok());
    let nonce = nonce.ok_or_else(|| {
        Refused::new(ErrorCode::InvalidPayload, format!("{CLAIM_HEADER} is not a word"))
    })?;
    let secret = || format!("{}{}", new_id(), new_id());
    match session.claim(&nonce, secret) {
        Some(grant) => {
            let granted = session.granted();
            promise(service, move |promised| promised.session = granted).await?;
            Ok(json(StatusCode::OK, &grant))
        }
        None => Err(Refused::new(ErrorCode::ResourceConflict, "somebody else has claimed the job")),
    }
}

async fn execute(service: &MetaService, headers: &HeaderMap) -> Result<Response, Refused> {
    let agent = announced(headers);
    if !service.is_fetched() {
        let now = SystemTime::now();
        promise(service, move |promised| promised.fetch(now)).await?;
        service.0.fetched.send_if_modified(|fetched| match fetched {
            Some(_) => false,
            None => fetched.replace(now).is_none(),
        });
    }
    let response = json(StatusCode::OK, &service.0.execute);
    Ok(introduce(service, agent, response))
}

/// Promises what the guest is about to be told.
async fn promise(
    service: &MetaService,
    what: impl FnOnce(&mut Promised) + Send + 'static,
) -> Result<(), Refused> {
    service.promise(what).await.map_err(|error| {
        tracing::warn!(%error, "the job's state cannot be written");
        Refused::new(ErrorCode::InternalError, "the job's state cannot be written")
    })
}

/// What an agent of ours says of itself.
fn announced(headers: &HeaderMap) -> Option<Agent> {
    headers.get(AGENT_HEADER)?.to_str().ok().and_then(Agent::from_header)
}

/// Remembers who asked, and says who we are to those who want to know.
fn introduce(service: &MetaService, agent: Option<Agent>, response: Response) -> Response {
    let response = say_who_we_are(service, agent.as_ref(), response);
    service.0.agent.send_replace(agent);
    response
}

fn say_who_we_are(
    service: &MetaService,
    agent: Option<&Agent>,
    mut response: Response,
) -> Response {
    if agent.is_some() {
        let ours = Service {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shell2: true,
            log: true,
            session: service.0.session.is_offered(),
        };
        if let Ok(value) = HeaderValue::try_from(ours.to_header()) {
            response.headers_mut().insert(SERVICE_HEADER, value);
        }
    }
    response
}

async fn log(service: &MetaService, request: Request) -> Result<Response, Refused> {
    use http_body_util::BodyExt;
    let mut place = log_place(request.headers())?;
    let mut body = request.into_body();
    let refused = |error| {
        tracing::debug!(%error, "a log request is refused");
        Refused::new(ErrorCode::InternalError, "the log cannot be written")
    };
    let _request = service.0.log.request();
    // A log may be silent for hours: only its end or a broken connection ends it.
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(chunk)) => match &mut place {
                None => service.0.log.write(chunk).await.map_err(refused)?,
                Some(place) => {
                    let written = service.0.log.write_at(place, chunk).await;
                    written.map_err(|untaken| match untaken {
                        Untaken::Failed(error) => refused(error),
                        Untaken::Misplaced(misplaced) => misplacement(misplaced),
                    })?;
                }
            },
            Ok(Err(_trailers)) => {}
            Err(error) => {
                tracing::debug!(%error, "a log request was cut");
                return Err(Refused::new(ErrorCode::InternalError, "the log was cut off"));
            }
        }
    }
    service.0.log.flush().await.map_err(refused)?;
    Ok(StatusCode::OK.into_response())
}

/// Where a log request's body belongs, if it says so.
fn log_place(headers: &HeaderMap) -> Result<Option<LogPlace>, Refused> {
    let Some(value) = headers.get(LOG_HEADER) else { return Ok(None) };
    match value.to_str().ok().and_then(LogPlace::from_header) {
        Some(place) => Ok(Some(place)),
        None => {
            let message = format!("{LOG_HEADER} is not a place in a log");
            Err(Refused::new(ErrorCode::InvalidPayload, message))
        }
    }
}

fn misplacement(misplaced: Misplaced) -> Refused {
    let message = match misplaced {
        Misplaced::Gap => "what comes before this in the log has never come",
        Misplaced::TooMany => "there are too many logs",
    };
    Refused::new(ErrorCode::InvalidPayload, message)
}

async fn resolve(
    service: &MetaService,
    success: bool,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let detail = headers.get(RESULT_HEADER).and_then(|value| value.to_str().ok());
    let ending = detail.and_then(Ending::from_header);
    match service.0.outcome.resolve(JobResult { success, ending }) {
        Ok(()) => {
            if let Some(result) = service.try_result() {
                promise(service, move |promised| promised.resolve(result)).await?;
            }
            Ok(StatusCode::OK.into_response())
        }
        Err(_conflict) => Err(Refused::new(
            ErrorCode::ResourceConflict,
            "the job has already been resolved the other way",
        )),
    }
}

async fn poll(service: &MetaService, headers: &HeaderMap, outbox: Option<Outbox>) -> Response {
    let agent = announced(headers);
    let capabilities = agent.as_ref().map(|agent| agent.capabilities).unwrap_or_default();
    let answer = service.0.actions.poll(capabilities).await;
    let none = || Action { id: new_id(), request: Asked::None };
    let action = answer.action().cloned().unwrap_or_else(none);
    let data = serde_json::to_vec(&action).unwrap_or_default();
    let body = AnswerBody { data: Some(data.into()), answer: Some(answer), outbox };
    introduce(service, agent, ([CONTENT_TYPE_JSON], Body::from(body)).into_response())
}

async fn reply(service: &MetaService, request: Request) -> Result<Response, Refused> {
    let reply = begin_reply(service, &request)?;
    match reply.request() {
        Asked::GetArtifact { .. } => artifact_reply(service, reply, request).await,
        Asked::ListFolder { .. } => files_reply(reply, request).await,
        Asked::ExecShell { .. } => shell_reply(reply, request.into_parts().0).await,
        Asked::KillProcess => finish(reply, Outcome::Done),
        Asked::None | Asked::Unknown { .. } => Err(Refused::unknown_action()),
        _ => extended_reply(reply, request).await,
    }
}

/// The reply to an action that version 1 does not have.
async fn extended_reply(reply: Reply, request: Request) -> Result<Response, Refused> {
    if let Some(value) = request.headers().get(FAILURE_HEADER) {
        let failure = Failure::from_header(value.to_str().unwrap_or_default());
        return finish(reply, Outcome::Refused(failure));
    }
    let posted = request.method() == http::Method::POST;
    match reply.request() {
        Asked::Signal(_) => finish(reply, Outcome::Done),
        Asked::Exec(exec) if exec.options.detach && posted => detached_reply(reply, request).await,
        Asked::Exec(exec) if exec.options.detach => Err(wrong_method(reply)),
        Asked::Exec(_) | Asked::Dial(_) | Asked::Write(_) if posted => Err(wrong_method(reply)),
        Asked::Exec(_) | Asked::Dial(_) | Asked::Write(_) => {
            shell_reply(reply, request.into_parts().0).await
        }
        _ => incoming_reply(reply, request).await,
    }
}

fn wrong_method(reply: Reply) -> Refused {
    reply.refuse();
    Refused::new(ErrorCode::MethodNotAllowed, "this action is not replied to by this method")
}

async fn detached_reply(mut reply: Reply, request: Request) -> Result<Response, Refused> {
    let read = async {
        let mut json = BytesMut::new();
        let mut body = request.into_body();
        while let Some(chunk) = next_chunk(&mut body, STALL_TIMEOUT).await? {
            if json.len() + chunk.len() > MAX_LINE {
                return Ok(None);
            }
            json.extend_from_slice(&chunk);
        }
        Ok::<_, ReceiveError>(Some(json))
    };
    let read = tokio::select! {
        read = read => read,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    match read {
        Ok(Some(json)) => finish(reply, Outcome::Json(json.freeze())),
        Ok(None) => {
            reply.refuse();
            let message = format!("this reply has at most {MAX_LINE} bytes");
            Err(Refused::new(ErrorCode::InvalidPayload, message))
        }
        Err(_) => Err(broken(reply, TransportError::Closed)),
    }
}

/// Hands the body to whoever waits for it, and answers when they are done with it.
async fn incoming_reply(reply: Reply, request: Request) -> Result<Response, Refused> {
    let head = request.headers().get(FILE_HEADER).and_then(|value| value.to_str().ok());
    let head = head.and_then(FileHead::from_header);
    if head.is_none() && matches!(reply.request(), Asked::Read(_)) {
        reply.refuse();
        let message = format!("a file comes with the header {FILE_HEADER}");
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    let (done, taken) = oneshot::channel();
    let incoming = Incoming { head, body: request.into_body(), done };
    if !reply.finish(Outcome::Incoming(Box::new(incoming))) {
        return Err(Refused::unknown_action());
    }
    match taken.await {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(_) => Err(Refused::new(ErrorCode::InternalError, "the reply is no longer wanted")),
    }
}

async fn list_folder(service: &MetaService, request: Request) -> Result<Response, Refused> {
    let reply = begin_reply(service, &request)?;
    if !matches!(reply.request(), Asked::ListFolder { .. }) {
        reply.refuse();
        let message = "this action is not a list-folder";
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    files_reply(reply, request).await
}

fn begin_reply(service: &MetaService, request: &Request) -> Result<Reply, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id="));
    let id = id.and_then(|id| ActionId::parse(id).ok()).ok_or_else(Refused::unknown_action)?;
    service.0.actions.reply(&id, request.method().as_str()).map_err(|refusal| match refusal {
        Refusal::Unknown => Refused::unknown_action(),
        Refusal::WrongMethod => Refused::new(
            ErrorCode::MethodNotAllowed,
            "this action is not replied to by this method",
        ),
    })
}

/// Hands the outcome over. A caller that has gone away meanwhile has withdrawn the action.
fn finish(reply: Reply, outcome: Outcome) -> Result<Response, Refused> {
    if reply.finish(outcome) {
        Ok(StatusCode::OK.into_response())
    } else {
        Err(Refused::unknown_action())
    }
}

async fn artifact_reply(
    service: &MetaService,
    mut reply: Reply,
    request: Request,
) -> Result<Response, Refused> {
    match request.headers().get(ERROR_HEADER).map(HeaderValue::as_bytes) {
        None => {}
        Some(value) if value == FILE_NOT_FOUND.as_bytes() => {
            return finish(reply, Outcome::Artifact(Err(ArtifactError::NotFound)));
        }
        Some(_) => {
            reply.refuse();
            let message = format!("{ERROR_HEADER} has one value: {FILE_NOT_FOUND}");
            return Err(Refused::new(ErrorCode::InvalidPayload, message));
        }
    }
    let folder = service.0.temporary_folder.clone();
    let received = tokio::select! {
        received = receive(request.into_body(), folder, service.0.max_artifact) => received,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    match received {
        Ok(artifact) => finish(reply, Outcome::Artifact(Ok(artifact))),
        Err(ReceiveError::Transport(cause)) => Err(broken(reply, cause)),
        Err(ReceiveError::Storage(cause)) => {
            reply.finish(Outcome::Artifact(Err(ArtifactError::Storage(cause))));
            Err(Refused::new(ErrorCode::InternalError, "the file cannot be stored"))
        }
    }
}

/// The guest hears of it only if its connection can still be written.
fn broken(reply: Reply, cause: TransportError) -> Refused {
    reply.finish(Outcome::Broken(cause));
    Refused::new(ErrorCode::InternalError, "the reply did not arrive whole")
}

async fn files_reply(mut reply: Reply, request: Request) -> Result<Response, Refused> {
    if !is_json(request.headers()) {
        reply.refuse();
        let message = "the content type of this reply is application/json";
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    let body = tokio::select! {
        body = read_files(request.into_body()) => body,
        () = reply.abandoned() => return Err(Refused::unknown_action()),
    };
    let invalid = match body {
        Ok(Some(json)) => match serde_json::from_slice::<Files>(&json) {
            Ok(files) => return finish(reply, Outcome::Files(files)),
            Err(error) => format!("not a Files payload: {error}"),
        },
        Ok(None) => format!("a Files payload has at most {MAX_FILES_BYTES} bytes"),
        Err(ReceiveError::Transport(cause)) => return Err(broken(reply, cause)),
        Err(ReceiveError::Storage(_)) => return Err(broken(reply, TransportError::Closed)),
    };
    reply.refuse();
    Err(Refused::new(ErrorCode::InvalidPayload, invalid))
}

/// A list-folder body, `None` when it is too long.
async fn read_files(mut body: Body) -> Result<Option<BytesMut>, ReceiveError> {
    let mut json = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, STALL_TIMEOUT).await? {
        if json.len() + chunk.len() > MAX_FILES_BYTES {
            return Ok(None);
        }
        json.extend_from_slice(&chunk);
    }
    Ok(Some(json))
}

async fn shell_reply(reply: Reply, mut parts: Parts) -> Result<Response, Refused> {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            reply.refuse();
            let message = format!("a shell begins with a websocket upgrade: {rejection}");
            return Err(Refused::new(ErrorCode::InvalidPayload, message));
        }
    };
    let offered = offers_second_dialect(&parts.headers);
    let dialect = if offered { reply.dialect() } else { Dialect::V1 };
    if dialect == Dialect::V1 && reply.request().needs().is_some() {
        reply.refuse();
        let message = format!("this stream is of the subprotocol {SHELL_PROTOCOL}");
        return Err(Refused::new(ErrorCode::InvalidPayload, message));
    }
    let upgrade = upgrade.protocols([subprotocol(dialect)]);
    // The reply travels with whichever of the two ends the handshake.
    let (connected, failed) = share(reply);
    let upgrade = upgrade
        .max_message_size(dialect.message())
        .max_frame_size(dialect.message())
        .on_failed_upgrade(move |error| {
            if let Some(reply) = failed.take() {
                reply.finish(Outcome::Broken(TransportError::Handshake(Some(error))));
            }
        });
    let (handshake, ended) = oneshot::channel::<()>();
    let late = connected.clone();
    tokio::spawn(async move {
        // The sender goes with the callback below, called or not.
        if tokio::time::timeout(SHELL_HANDSHAKE_TIMEOUT, ended).await.is_err()
            && let Some(reply) = late.take()
        {
            reply.finish(Outcome::Broken(TransportError::Handshake(None)));
        }
    });
    Ok(upgrade.on_upgrade(async move |socket| {
        drop(handshake);
        if let Some(reply) = connected.take() {
            reply.finish(Outcome::Shell(Box::new(socket), dialect));
        }
    }))
}

/// The name of a dialect, for those who offer names.
pub(crate) const fn subprotocol(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::V1 => SHELL1_PROTOCOL,
        Dialect::V2 => SHELL_PROTOCOL,
    }
}

pub(crate) fn offers_second_dialect(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim() == SHELL_PROTOCOL)
}

/// A reply that several may want and one gets.
#[derive(Clone)]
struct Shared(std::sync::Arc<std::sync::Mutex<Option<Reply>>>);

impl Shared {
    fn take(&self) -> Option<Reply> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

fn share(reply: Reply) -> (Shared, Shared) {
    let shared = Shared(std::sync::Arc::new(std::sync::Mutex::new(Some(reply))));
    (shared.clone(), shared)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    // Plain structs of strings: turning them into JSON cannot fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [CONTENT_TYPE_JSON], body).into_response()
}
