//! The end-points of version 1, to the letter.
//!
//! One dispatcher compares path and method exactly, instead of a routing table that
//! knows HTTP better than the protocol does: a HEAD of `poll`, for instance, must not
//! take an action along. Handlers translate between HTTP and the job; they decide nothing.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use metaservice_protocol::header::{
    AGENT_HEADER, CLAIM_HEADER, LOG_HEADER, RESULT_HEADER, SERVICE_HEADER, SESSION_HEADER,
};
use metaservice_protocol::{
    ActionId, AgentInfo, Capability, Ending, Endpoint, ErrorBody, ErrorCode, LogPlace, PollAnswer,
    Renewal, ServiceInfo,
};

use crate::MetaService;
use crate::guest::connection::{AnswerBody, Outbox};
use crate::guest::{origin, replies};
use crate::handle::service::new_id;
use crate::job::contact::Contact;
use crate::job::log::{Misplaced, Untaken};
use crate::job::persistence::Promised;
use crate::job::result::JobResult;
use crate::job::session::Admitted;

const CONTENT_TYPE_JSON: (header::HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The service's end-points.
pub(crate) fn router(service: MetaService) -> Router {
    Router::new().fallback(dispatch).with_state(service)
}

/// What a request is refused with.
pub(crate) struct Refused {
    code: ErrorCode,
    message: String,
}

impl Refused {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn no_endpoint() -> Self {
        Self::new(ErrorCode::NoSuchEndPoint, "nothing is served at this path")
    }

    pub(crate) fn unknown_action() -> Self {
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
    if let Err(status) = service.0.bounds.admit_head(&request) {
        let message = "the request's line or its headers are too long".to_owned();
        let body = ErrorBody { code: ErrorCode::InvalidPayload, message };
        return Ok(json(status, &body));
    }
    let path = request.uri().path();
    let Some(endpoint) = Endpoint::from_path(path) else {
        return service.0.reception.answer(&service.0.host_names, &request);
    };
    // A reply says first whether its action is pending, and then by which method it is answered.
    let replies = matches!(endpoint, Endpoint::Reply | Endpoint::ListFolder);
    if !replies && !endpoint.allows(request.method().as_str()) {
        let message = format!("{endpoint:?} is not used by this method");
        return Err(Refused::new(ErrorCode::MethodNotAllowed, message));
    }
    let mut admitted = match admit(&service, endpoint, request.uri(), request.headers()) {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(*refusal),
    };
    let agent = announced(request.headers());
    let outbox = outbox.map(|Extension(outbox)| outbox);
    match endpoint {
        Endpoint::Execute => execute(&service, request.headers()).await,
        Endpoint::Success => resolve(&service, true, request.headers()).await,
        Endpoint::Failed => resolve(&service, false, request.headers()).await,
        Endpoint::Ping => Ok(StatusCode::OK.into_response()),
        Endpoint::Session => claim(&service, request.headers()).await,
        Endpoint::Renewal => renew(&service, request.headers()),
        // What takes its time ends with the leave that it began with.
        Endpoint::Log | Endpoint::Poll | Endpoint::Reply | Endpoint::ListFolder => {
            let leave = admitted.clone();
            let answer = async {
                match endpoint {
                    Endpoint::Log => log(&service, request, outbox).await,
                    Endpoint::Poll => Ok(poll(&service, agent, outbox).await),
                    Endpoint::Reply => replies::reply(&service, request, leave).await,
                    _ => replies::list_folder(&service, request).await,
                }
            };
            tokio::select! {
                biased;
                () = admitted.over() => Ok(session_required(&service, None)),
                answer = answer => answer,
            }
        }
    }
}

/// Leave for a request to be served, or what it is answered with: it may be somebody else's than
/// the guest's agent's.
fn admit(
    service: &MetaService,
    endpoint: Endpoint,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Admitted, Box<Response>> {
    if let Err(message) = origin::check(uri, headers, &service.0.host_names) {
        return Err(Box::new(Refused::new(ErrorCode::Forbidden, message).into_response()));
    }
    if [Endpoint::Ping, Endpoint::Session, Endpoint::Renewal].contains(&endpoint) {
        return Ok(Admitted::always());
    }
    let secret = headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok());
    let Some(admitted) = service.0.session.admit(secret) else {
        let agent = announced(headers);
        note_refusal(service, agent.is_some());
        return Err(Box::new(session_required(service, agent.as_ref())));
    };
    service.0.contact.heard();
    Ok(admitted)
}

/// A request without the session was refused. An agent that has announced itself claims the job next,
/// where it can.
fn note_refusal(service: &MetaService, announced: bool) {
    match (service.0.session.is_granted(), announced) {
        (false, true) => {}
        (false, false) => service.0.contact.refused(Contact::NoSession),
        (true, _) => service.0.contact.refused(Contact::Claimed),
    }
}

fn session_required(service: &MetaService, agent: Option<&AgentInfo>) -> Response {
    let message = "this job's session is another's, or it has to be claimed first";
    let refused = Refused::new(ErrorCode::SessionRequired, message).into_response();
    say_who_we_are(service, agent, refused)
}

async fn claim(service: &MetaService, headers: &HeaderMap) -> Result<Response, Refused> {
    let session = &service.0.session;
    let Some(nonce) = headers.get(CLAIM_HEADER).filter(|_| session.is_offered()) else {
        // As to a guest of version 1.
        return Err(Refused::no_endpoint());
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
        None => {
            service.0.contact.refused(Contact::Claimed);
            Err(Refused::new(ErrorCode::ResourceConflict, "somebody else has claimed the job"))
        }
    }
}

/// What is new for a machine that has waited for this job, until it has it.
fn renew(service: &MetaService, headers: &HeaderMap) -> Result<Response, Refused> {
    let agent = announced(headers);
    let renews = agent.as_ref().is_some_and(|agent| agent.capabilities.has(Capability::Renew));
    if !renews || service.is_fetched() || service.0.session.granted().is_some() {
        // As to a guest of version 1.
        return Err(Refused::new(ErrorCode::NoSuchEndPoint, "nothing is served at this path"));
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let renewal = Renewal {
        time_ns: u64::try_from(now.as_nanos()).unwrap_or(0),
        random: (0..4).map(|_| new_id().as_str().to_owned()).collect(),
        hostname: service.0.hostname.clone(),
    };
    Ok(say_who_we_are(service, agent.as_ref(), json(StatusCode::OK, &renewal)))
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
pub(crate) fn announced(headers: &HeaderMap) -> Option<AgentInfo> {
    headers.get(AGENT_HEADER)?.to_str().ok().and_then(AgentInfo::from_header)
}

/// Remembers who asked, and says who we are to those who want to know.
fn introduce(service: &MetaService, agent: Option<AgentInfo>, response: Response) -> Response {
    let response = say_who_we_are(service, agent.as_ref(), response);
    service.0.agent.send_replace(agent);
    response
}

fn say_who_we_are(
    service: &MetaService,
    agent: Option<&AgentInfo>,
    mut response: Response,
) -> Response {
    if agent.is_some() {
        let announced = ServiceInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shell2: true,
            log: true,
            session: service.0.session.is_offered(),
            keep_alive: true,
            renewal: false,
        };
        if let Ok(value) = HeaderValue::try_from(announced.to_header()) {
            response.headers_mut().insert(SERVICE_HEADER, value);
        }
    }
    response
}

async fn log(
    service: &MetaService,
    request: Request,
    outbox: Option<Outbox>,
) -> Result<Response, Refused> {
    use http_body_util::BodyExt;
    let mut place = log_place(request.headers())?;
    let mut body = request.into_body();
    let refused = |error| {
        tracing::debug!(%error, "a log request is refused");
        Refused::new(ErrorCode::InternalError, "the log cannot be written")
    };
    let _request = service.0.log.request();
    let plain = place.is_none();
    if plain {
        service.0.holes.begin();
        promise_hole(service).await?;
    }
    // A log may be silent for hours: only its end or a broken connection ends it.
    while let Some(frame) = body.frame().await {
        service.0.contact.heard();
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
                if plain {
                    service.0.holes.cut();
                }
                // A guest whose connection was cut in this direction alone is not to take an
                // answer for the log's end: it sends again what was not confirmed.
                if let Some(outbox) = outbox {
                    outbox.abandon();
                }
                return Err(Refused::new(ErrorCode::InternalError, "the log was cut off"));
            }
        }
    }
    service.0.log.flush().await.map_err(refused)?;
    if plain {
        service.0.holes.end();
        promise_hole(service).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// Keeps whether the log of version 1 has a hole, should another service have to go on.
async fn promise_hole(service: &MetaService) -> Result<(), Refused> {
    if service.0.store.is_none() {
        return Ok(());
    }
    let holes = Arc::clone(&service.0.holes);
    // Asked where it is written, one after the other.
    promise(service, move |promised| promised.log_hole = holes.may_follow()).await
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
    let result = service.0.outcome.explained(JobResult { success, ending });
    if let Some(store) = &service.0.store {
        // The disk has it before anybody is told: of two results at once it takes the first.
        let kept = result.clone();
        promise(service, move |promised| promised.resolve(kept)).await?;
        let first = store.promised().result();
        if let Some(first) = first {
            // The same as this one, or this one's conflict.
            let _ = service.0.outcome.resolve(first);
        }
    }
    match service.0.outcome.resolve(result) {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(_conflict) => Err(Refused::new(
            ErrorCode::ResourceConflict,
            "the job has already been resolved the other way",
        )),
    }
}

/// The answer to a poll with these headers, which goes out by way of `outbox`. The future holds
/// nothing of the headers while it waits.
pub(crate) fn answer_poll<'a>(
    service: &'a MetaService,
    headers: &HeaderMap,
    outbox: Outbox,
) -> impl Future<Output = Response> + use<'a> {
    let admitted = admit(service, Endpoint::Poll, &Uri::default(), headers);
    let agent = announced(headers);
    async move {
        let mut admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        tokio::select! {
            biased;
            () = admitted.over() => session_required(service, None),
            answer = poll(service, agent, Some(outbox)) => answer,
        }
    }
}

async fn poll(service: &MetaService, agent: Option<AgentInfo>, outbox: Option<Outbox>) -> Response {
    let capabilities = agent.as_ref().map(|agent| agent.capabilities).unwrap_or_default();
    let polling = service.0.contact.poll();
    let answer = service.0.actions.poll(capabilities).await;
    drop(polling);
    let action = answer.action().cloned();
    let none = || PollAnswer::None { id: new_id() };
    let polled = action.map_or_else(none, PollAnswer::Action);
    let data = serde_json::to_vec(&polled).unwrap_or_default();
    let body = AnswerBody { data: Some(data.into()), answer: Some(answer), outbox };
    introduce(service, agent, ([CONTENT_TYPE_JSON], Body::from(body)).into_response())
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    // Plain structs of strings: turning them into JSON cannot fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [CONTENT_TYPE_JSON], body).into_response()
}
