//! What holds for each request: it comes from the page, and has a session where it needs one.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::responses::{Code, Refused, refuse};
use crate::access::gate::{Head, Header, Refusal};
use crate::access::users::{Role, Who};

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 16 * 1024;

/// The longest description of a job, in bytes.
const MAX_DESCRIPTION: usize = 256 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What every response has.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         object-src 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Refuses what does not come from the page, and adds the headers that every response has.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match checked(&app, request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let unset = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(unset);
    response
}

/// Cancelled when a websocket must end: with the session of its user, and with the server.
#[derive(Clone)]
pub(super) struct Until(pub(super) CancellationToken);

/// Refuses what has no session. Handlers get the user and [`Until`], as
/// [`Extension`](axum::Extension).
pub(super) async fn with_session(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let Some((who, end)) = session(&app, request.headers()) else {
        return Err(refuse(Code::NoSession, "there is no session: open a new link"));
    };
    request.extensions_mut().insert(who);
    request.extensions_mut().insert(Until(end));
    Ok(next.run(request).await)
}

/// Refuses users without this role. It comes after [`with_session`].
pub(super) async fn with_role(
    State(role): State<Role>,
    Extension(who): Extension<Who>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    check(&who, role)?;
    Ok(next.run(request).await)
}

/// Refuses a user without this role.
pub(super) fn check(who: &Who, role: Role) -> Result<(), Refused> {
    if who.role < role {
        return Err(refuse(Code::Denied, format!("this needs the role {role}")));
    }
    Ok(())
}

async fn checked(app: &App, request: Request) -> Result<Request, Refused> {
    let mut head = head(request.method(), request.headers());
    // A link of another page leads to the page alone.
    if request.uri().path().starts_with("/api") {
        head.mode = Header::None;
    }
    app.gate.check(head).map_err(|refusal| {
        let message = match refusal {
            Refusal::Host => "this is not the address of this server",
            Refusal::Origin => "this is not a request of the page",
            Refusal::Site => "another site asks for this",
        };
        refuse(Code::Foreign, message)
    })?;
    // A part of an upload is read by its handler, to a limit of its own.
    if matches!(*request.method(), Method::GET | Method::PUT) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let most = if parts.uri.path() == "/api/jobs" { MAX_DESCRIPTION } else { MAX_BODY };
    match timeout(BODY_TIMEOUT, to_bytes(body, most)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body))),
        _ => Err(refuse(Code::Invalid, "the body is too long, or does not arrive")),
    }
}

fn head<'a>(method: &Method, headers: &'a HeaderMap) -> Head<'a> {
    Head {
        reads: matches!(*method, Method::GET | Method::HEAD),
        upgrades: headers.contains_key(header::UPGRADE),
        host: only(headers, header::HOST.as_str()),
        origin: only(headers, header::ORIGIN.as_str()),
        site: only(headers, "sec-fetch-site"),
        mode: only(headers, "sec-fetch-mode"),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Header<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Header::None,
        (Some(value), None) => value.to_str().map_or(Header::Other, Header::One),
        (Some(_), Some(_)) => Header::Other,
    }
}

/// The header with the token of a proxy.
const PROXY: &str = "metaservice-proxy";

/// The header in which a proxy names the user.
const USER: &str = "metaservice-user";

fn session(app: &App, headers: &HeaderMap) -> Option<(Who, CancellationToken)> {
    let now = Instant::now();
    let mut sessions = app.sessions();
    match (only(headers, PROXY), only(headers, USER)) {
        (Header::None, _) => secrets(app, headers).find_map(|secret| sessions.accept(secret, now)),
        (Header::One(token), Header::One(name)) => {
            sessions.by_proxy(token, name).map(|who| (who, app.end.clone()))
        }
        // A user who adds a header to that of a proxy is no one.
        _ => None,
    }
}

/// The secrets of sessions that a request has.
pub(super) fn secrets<'a>(app: &'a App, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    // A browser may send another one of this name, for a longer path.
    let own = pairs.filter(|(name, _)| name.trim() == app.cookie).take(4);
    own.map(|(_, secret)| secret.trim())
}
