//! What a machine without an agent is given: the paths beside those of the protocol.
//!
//! Owns the way from HTTP to [`cloud`](crate::guest::cloud) and [`delivery`](crate::guest::delivery) and back. No session is
//! asked for, because nobody has one before the agent is there, and after a reboot: what is
//! here has no secret in it. Where neither was set up, every path is none, as in version 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use metaservice_private::lock;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use metaservice_protocol::ErrorCode;

use crate::guest::cloud::{self, Answer, Cloud, Question, TOKEN_HEADER, TTL_HEADER};
use crate::guest::delivery::Delivery;
use crate::guest::endpoints::Refused;
use crate::guest::origin;
use crate::handle::service::new_id;

/// Both, where they were set up.
#[derive(Default)]
pub(crate) struct Reception {
    delivery: Delivery,
    cloud: Option<Mutex<cloud::Server>>,
}

impl Reception {
    /// With agents by their `OS-ARCH`.
    pub(crate) fn new(agents: BTreeMap<String, Bytes>, cloud: Option<&Cloud>) -> Self {
        let delivery = Delivery::new(agents);
        let server = |cloud| Mutex::new(cloud::Server::new(cloud, delivery.script().as_deref()));
        let cloud = cloud.map(server);
        Self { delivery, cloud }
    }

    /// The answer to a request that is for no end-point of the protocol.
    pub(crate) fn answer(
        &self,
        host_names: &BTreeSet<String>,
        request: &Request,
    ) -> Result<Response, Refused> {
        let path = request.uri().path();
        let delivered = self.delivery.find(path);
        if delivered.is_none() && self.cloud.is_none() {
            return Err(Refused::no_endpoint());
        }
        origin::check(request.uri(), request.headers(), host_names)
            .map_err(|message| Refused::new(ErrorCode::Forbidden, message))?;
        if let Some(delivered) = delivered {
            return match *request.method() {
                Method::GET => Ok(plain(StatusCode::OK, delivered)),
                _ => Err(wrong_method()),
            };
        }
        let Some(cloud) = &self.cloud else { return Err(Refused::no_endpoint()) };
        describe(cloud, request)
    }
}

/// What the instance is told of itself.
fn describe(cloud: &Mutex<cloud::Server>, request: &Request) -> Result<Response, Refused> {
    let headers = request.headers();
    let said = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let question = Question {
        method: request.method().as_str(),
        path: request.uri().path(),
        token: headers.contains_key(TOKEN_HEADER).then(|| said(TOKEN_HEADER).unwrap_or_default()),
        ttl: said(TTL_HEADER),
    };
    let now = tokio::time::Instant::now().into_std();
    let random = || new_id().as_str().to_owned();
    // What is behind the lock changes all at once.
    let mut cloud = lock(&cloud);
    match cloud.answer(question, now, random) {
        Answer::Found(found) => Ok(plain(StatusCode::OK, found)),
        Answer::Token(token, life) => {
            let mut response = plain(StatusCode::OK, token);
            response.headers_mut().insert(TTL_HEADER, life.into());
            Ok(response)
        }
        Answer::BadRequest => Ok(plain(StatusCode::BAD_REQUEST, "the token's life is missing")),
        Answer::Unauthorized => Ok(plain(StatusCode::UNAUTHORIZED, "the token is not valid")),
        Answer::MethodNotAllowed => Err(wrong_method()),
        Answer::NotFound => Err(Refused::no_endpoint()),
    }
}

fn wrong_method() -> Refused {
    Refused::new(ErrorCode::MethodNotAllowed, "this path is not used by this method")
}

/// Bytes that nobody shall take for anything else than what they asked for.
fn plain(status: StatusCode, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
