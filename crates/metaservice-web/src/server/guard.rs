//! What holds for each request: it comes from the page, and has a session where it needs one.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use tokio::time::{Instant, timeout};

use super::app::App;
use super::responses::{Code, Refused, refuse};
use crate::access::gate::{Head, Header, Refusal};

/// The longest body of a request, in bytes.
const MAX_BODY: usize = 4 * 1024;

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

/// Refuses what has no session.
pub(super) async fn with_session(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if has_session(&app, request.headers()) {
        Ok(next.run(request).await)
    } else {
        Err(refuse(Code::NoSession, "there is no session: open a new link"))
    }
}

async fn checked(app: &App, request: Request) -> Result<Request, Refused> {
    app.gate.check(head(request.method(), request.headers())).map_err(|refusal| {
        let message = match refusal {
            Refusal::Host => "this is not the address of this server",
            Refusal::Origin => "this is not a request of the page",
            Refusal::Site => "another site asks for this",
        };
        refuse(Code::Foreign, message)
    })?;
    if request.method() == Method::GET {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
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

fn has_session(app: &App, headers: &HeaderMap) -> bool {
    let now = Instant::now();
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    // A browser may send another one of this name, for a longer path.
    let own = pairs.filter(|(name, _)| name.trim() == app.cookie).take(4);
    let mut sessions = app.sessions();
    own.map(|(_, secret)| secret.trim()).any(|secret| sessions.accept(secret, now))
}
