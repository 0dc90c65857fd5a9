//! The end-points of protocol version 1, to the letter, and its extensions.
//!
//! One dispatcher compares path and method exactly. A routing table would know HTTP better than
//! the protocol does: a HEAD of `poll`, for example, must not take an action. Handlers translate
//! between HTTP and the job.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use metaservice_protocol::header::{
    AGENT_HEADER, CLAIM_HEADER, RESULT_HEADER, SERVICE_HEADER, SESSION_HEADER,
};
use metaservice_protocol::{
    ActionId, AgentInfo, Capability, Ending, Endpoint, ErrorCode, Execute, Failure, FailureCode,
    PollAnswer, Reason, Renewal, ServiceInfo,
};

use crate::guest::context::GuestContext;
use crate::guest::http_error::{CONTENT_TYPE_JSON, HttpError, json, not_persisted};
use crate::guest::needs::{self, Unsupported};
use crate::guest::outbox::{AnswerBody, Outbox};
use crate::guest::{log, origin, replies};
use crate::job::contact::Contact;
use crate::job::id::new_id;
use crate::job::need::Need;
use crate::job::result::JobResult;
use crate::job::session::Authorization;

/// The service's end-points.
pub(crate) fn router(guest: Arc<GuestContext>) -> Router {
    Router::new().fallback(dispatch).with_state(guest)
}

async fn dispatch(
    State(guest): State<Arc<GuestContext>>,
    Extension(outbox): Extension<Outbox>,
    request: Request,
) -> Result<Response, HttpError> {
    if let Err(status) = guest.job.limits.check_head(&request) {
        let message = "the request's line or its headers are too long";
        return Ok(HttpError::new(ErrorCode::InvalidPayload, message).with_status(status));
    }
    let path = request.uri().path();
    let Some(endpoint) = Endpoint::from_path(path) else {
        return guest.reception.answer(&guest.host_names, &request);
    };
    // For a reply the first question is whether its action is pending, the second its method.
    let replies = matches!(endpoint, Endpoint::Reply | Endpoint::ListFolder);
    if !replies && !endpoint.allows(request.method().as_str()) {
        let message = format!("{endpoint:?} is not used by this method");
        return Err(HttpError::new(ErrorCode::MethodNotAllowed, message));
    }
    let mut authorization = match authorize(&guest, endpoint, request.uri(), request.headers()) {
        Ok(authorization) => authorization,
        Err(response) => return Ok(*response),
    };
    let agent = announced(request.headers());
    match endpoint {
        Endpoint::Execute => execute(&guest, request.headers()).await,
        Endpoint::Success => resolve(&guest, true, request.headers()).await,
        Endpoint::Failed => resolve(&guest, false, request.headers()).await,
        Endpoint::Ping => Ok(StatusCode::OK.into_response()),
        Endpoint::Session => claim(&guest, request.headers()).await,
        Endpoint::Renewal => renew(&guest, request.headers()),
        // These may take long. They end when the authorization ends.
        Endpoint::Log | Endpoint::Poll | Endpoint::Reply | Endpoint::ListFolder => {
            let of_reply = authorization.clone();
            let answer = async {
                match endpoint {
                    Endpoint::Log => log::receive(&guest.job, request, outbox).await,
                    Endpoint::Poll => Ok(poll(&guest, agent, outbox).await),
                    Endpoint::Reply => replies::reply(&guest, request, of_reply).await,
                    _ => replies::list_folder(&guest, request).await,
                }
            };
            tokio::select! {
                biased;
                () = authorization.ended() => Ok(session_required(&guest, None)),
                answer = answer => answer,
            }
        }
    }
}

/// Checks the origin and the session of a request. The error is the response.
fn authorize(
    guest: &GuestContext,
    endpoint: Endpoint,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Authorization, Box<Response>> {
    if let Err(message) = origin::check(uri, headers, &guest.host_names) {
        return Err(Box::new(HttpError::new(ErrorCode::Forbidden, message).into_response()));
    }
    if [Endpoint::Ping, Endpoint::Session, Endpoint::Renewal].contains(&endpoint) {
        return Ok(Authorization::unlimited());
    }
    let secret = headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok());
    let Some(authorization) = guest.job.session.authorize(secret) else {
        let agent = announced(headers);
        note_unauthorized(guest, agent.is_some());
        return Err(Box::new(session_required(guest, agent.as_ref())));
    };
    guest.job.contact.heard();
    Ok(authorization)
}

/// Records a request without a valid session secret, so that `contact` shows why the agent is
/// refused. If the job is not claimed and the request announces an agent, nothing is recorded:
/// this agent claims the job next.
fn note_unauthorized(guest: &GuestContext, announced: bool) {
    match (guest.job.session.is_granted(), announced) {
        (false, true) => {}
        (false, false) => guest.job.contact.unauthorized(Contact::NoSession),
        (true, _) => guest.job.contact.unauthorized(Contact::Claimed),
    }
}

fn session_required(guest: &GuestContext, agent: Option<&AgentInfo>) -> Response {
    let message = "another agent has claimed this job, or the job must be claimed first";
    let error = HttpError::new(ErrorCode::SessionRequired, message).into_response();
    announce(guest, agent, error)
}

async fn claim(guest: &GuestContext, headers: &HeaderMap) -> Result<Response, HttpError> {
    let session = &guest.job.session;
    let Some(nonce) = headers.get(CLAIM_HEADER).filter(|_| session.is_offered()) else {
        // Version 1 has no such end-point.
        return Err(HttpError::no_endpoint());
    };
    let nonce = nonce.to_str().ok().and_then(|nonce| ActionId::parse(nonce).ok());
    let nonce = nonce.ok_or_else(|| {
        HttpError::new(ErrorCode::InvalidPayload, format!("{CLAIM_HEADER} is not a word"))
    })?;
    let secret = || format!("{}{}", new_id(), new_id());
    match session.claim(&nonce, secret) {
        Some(grant) => {
            let granted = session.granted();
            guest.job.persist(move |state| state.session = granted).await.map_err(not_persisted)?;
            Ok(json(StatusCode::OK, &grant))
        }
        None => {
            guest.job.contact.unauthorized(Contact::Claimed);
            Err(HttpError::new(ErrorCode::ResourceConflict, "another agent has claimed this job"))
        }
    }
}

/// What is new for a machine that was restored from a snapshot and has waited for this job.
fn renew(guest: &GuestContext, headers: &HeaderMap) -> Result<Response, HttpError> {
    let agent = announced(headers);
    let renews = agent.as_ref().is_some_and(|agent| agent.capabilities.has(Capability::Renew));
    if !renews || guest.job.is_fetched() || guest.job.session.is_granted() {
        // Version 1 has no such end-point.
        return Err(HttpError::no_endpoint());
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let renewal = Renewal {
        time_ns: u64::try_from(now.as_nanos()).unwrap_or(0),
        random: (0..4).map(|_| new_id().as_str().to_owned()).collect(),
        hostname: guest.hostname.clone(),
    };
    Ok(announce(guest, agent.as_ref(), json(StatusCode::OK, &renewal)))
}

async fn execute(guest: &GuestContext, headers: &HeaderMap) -> Result<Response, HttpError> {
    let agent = announced(headers);
    let without = match needs::check(&guest.job.execute, agent.as_ref()) {
        Ok(without) => without,
        Err(unsupported) => return Err(end_unsupported(guest, unsupported).await),
    };
    if guest.job.is_unsupported() {
        let message = "the job has ended: another agent in the guest cannot run its command";
        return Err(HttpError::new(ErrorCode::ResourceConflict, message));
    }
    guest.job.fetch(SystemTime::now()).await.map_err(not_persisted)?;
    let execute = &guest.job.execute;
    let separate = execute.separate && !without.contains(&Need::Streams);
    let response = json(StatusCode::OK, &Execute { separate, ..execute.clone() });
    guest.job.go_without(without);
    Ok(introduce(guest, agent, response))
}

/// Ends a job whose agent cannot run its command, unless another agent has fetched it. The agent
/// gets an error that version 1 has, and not the command.
async fn end_unsupported(guest: &GuestContext, unsupported: Unsupported) -> HttpError {
    let message = unsupported.to_string();
    if !guest.job.is_fetched() {
        let failure = Some(Failure::new(FailureCode::Invalid, message.clone()));
        let ending = Some(Ending { failure, ..Ending::new(Reason::Unsupported) });
        // In a conflict, the job has a result already.
        if let Err(error) = guest.job.resolve(JobResult { success: false, ending }).await {
            return not_persisted(error);
        }
    }
    HttpError::new(ErrorCode::ResourceConflict, message)
}

/// What an agent announces of itself; `None` for one of version 1.
pub(crate) fn announced(headers: &HeaderMap) -> Option<AgentInfo> {
    headers.get(AGENT_HEADER)?.to_str().ok().and_then(AgentInfo::from_header)
}

/// Records the agent, and announces the service to it.
fn introduce(guest: &GuestContext, agent: Option<AgentInfo>, response: Response) -> Response {
    let response = announce(guest, agent.as_ref(), response);
    guest.job.agent.send_replace(agent);
    response
}

/// Announces what this service can do, to an agent that has announced itself.
fn announce(guest: &GuestContext, agent: Option<&AgentInfo>, mut response: Response) -> Response {
    if agent.is_some() && guest.extensions {
        let service = ServiceInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shell2: true,
            log: true,
            session: guest.job.session.is_offered(),
            keep_alive: true,
            renewal: false,
        };
        if let Ok(value) = HeaderValue::try_from(service.to_header()) {
            response.headers_mut().insert(SERVICE_HEADER, value);
        }
    }
    response
}

async fn resolve(
    guest: &GuestContext,
    success: bool,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let detail = headers.get(RESULT_HEADER).and_then(|value| value.to_str().ok());
    let ending = detail.and_then(Ending::from_header);
    match guest.job.resolve(JobResult { success, ending }).await.map_err(not_persisted)? {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(_conflict) => Err(HttpError::new(
            ErrorCode::ResourceConflict,
            "the job has already been resolved the other way",
        )),
    }
}

/// The answer to a poll with these headers; it leaves through `outbox`. While the future waits, it
/// holds nothing of the headers.
pub(crate) fn answer_poll<'a>(
    guest: &'a GuestContext,
    headers: &HeaderMap,
    outbox: Outbox,
) -> impl Future<Output = Response> + use<'a> {
    let authorization = authorize(guest, Endpoint::Poll, &Uri::default(), headers);
    let agent = announced(headers);
    async move {
        let mut authorization = match authorization {
            Ok(authorization) => authorization,
            Err(response) => return *response,
        };
        tokio::select! {
            biased;
            () = authorization.ended() => session_required(guest, None),
            answer = poll(guest, agent, outbox) => answer,
        }
    }
}

async fn poll(guest: &GuestContext, agent: Option<AgentInfo>, outbox: Outbox) -> Response {
    let capabilities = agent.as_ref().map(|agent| agent.capabilities).unwrap_or_default();
    let polling = guest.job.contact.poll();
    let answer = guest.job.actions.poll(capabilities).await;
    drop(polling);
    let none = || PollAnswer::None { id: new_id() };
    let content = answer.action().cloned().map_or_else(none, PollAnswer::Action);
    let data = serde_json::to_vec(&content).unwrap_or_default();
    let body = AnswerBody { data: Some(data.into()), answer: Some(answer), outbox };
    introduce(guest, agent, ([CONTENT_TYPE_JSON], Body::from(body)).into_response())
}
