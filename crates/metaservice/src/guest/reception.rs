//! The paths that are not the protocol's. They serve a machine that has no agent yet.
//!
//! Translates between HTTP and [`cloud`](crate::guest::cloud) and
//! [`delivery`](crate::guest::delivery). No session is required, because a machine has none before
//! its agent runs: nothing here is a secret. Without cloud metadata and agents, no path exists, as
//! in version 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use metaservice_private::lock;
use metaservice_protocol::ErrorCode;

use crate::guest::cloud::instance::Cloud;
use crate::guest::cloud::server::{self, Answer, Question, TOKEN_HEADER, TTL_HEADER};
use crate::guest::delivery::Delivery;
use crate::guest::http_error::HttpError;
use crate::guest::origin;
use crate::job::id::new_id;

/// Agents and cloud metadata, as far as the host provides them.
#[derive(Default)]
pub(crate) struct Reception {
    delivery: Delivery,
    cloud: Option<Mutex<server::Server>>,
}

impl Reception {
    /// `agents` are by platform, as `OS-ARCH`.
    pub(crate) fn new(agents: BTreeMap<String, Bytes>, cloud: Option<&Cloud>) -> Self {
        let delivery = Delivery::new(agents);
        let server = |cloud| Mutex::new(server::Server::new(cloud, delivery.script().as_deref()));
        let cloud = cloud.map(server);
        Self { delivery, cloud }
    }

    /// Answers a request whose path is not an end-point of the protocol.
    pub(crate) fn answer(
        &self,
        host_names: &BTreeSet<String>,
        request: &Request,
    ) -> Result<Response, HttpError> {
        let path = request.uri().path();
        let delivered = self.delivery.find(path);
        if delivered.is_none() && self.cloud.is_none() {
            return Err(HttpError::no_endpoint());
        }
        origin::check(request.uri(), request.headers(), host_names)
            .map_err(|message| HttpError::new(ErrorCode::Forbidden, message))?;
        if let Some(delivered) = delivered {
            return match *request.method() {
                Method::GET => Ok(plain(StatusCode::OK, delivered)),
                _ => Err(wrong_method()),
            };
        }
        let Some(cloud) = &self.cloud else { return Err(HttpError::no_endpoint()) };
        metadata(cloud, request)
    }
}

fn metadata(cloud: &Mutex<server::Server>, request: &Request) -> Result<Response, HttpError> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let question = Question {
        method: request.method().as_str(),
        path: request.uri().path(),
        token: headers.contains_key(TOKEN_HEADER).then(|| text(TOKEN_HEADER).unwrap_or_default()),
        ttl: text(TTL_HEADER),
    };
    let now = tokio::time::Instant::now().into_std();
    let random = || new_id().as_str().to_owned();
    let mut cloud = lock(cloud);
    match cloud.answer(question, now, random) {
        Answer::Found(found) => Ok(plain(StatusCode::OK, found)),
        Answer::Token(token, lifetime) => {
            let mut response = plain(StatusCode::OK, token);
            response.headers_mut().insert(TTL_HEADER, lifetime.into());
            Ok(response)
        }
        Answer::BadRequest => Ok(plain(StatusCode::BAD_REQUEST, "the token's life is missing")),
        Answer::Unauthorized => Ok(plain(StatusCode::UNAUTHORIZED, "the token is not valid")),
        Answer::MethodNotAllowed => Err(wrong_method()),
        Answer::NotFound => Err(HttpError::no_endpoint()),
    }
}

fn wrong_method() -> HttpError {
    HttpError::new(ErrorCode::MethodNotAllowed, "this path is not used by this method")
}

/// A response that no client takes for anything but plain text.
fn plain(status: StatusCode, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
