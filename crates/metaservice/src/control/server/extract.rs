//! What handlers take out of requests.

use axum::extract::{FromRequest, FromRequestParts};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;

use super::responses::refuse;
use crate::control::error::Code;

/// The largest body that describes a command, in bytes.
pub(super) const MAX_COMMAND: usize = metaservice_protocol::limits::MAX_ACTION;

/// The query parameters of a request. The error of an invalid one is an
/// [`ApiError`](crate::control::error::ApiError) too.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, Response> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(refuse(Code::InvalidRequest, rejection.body_text())),
        }
    }
}

/// A number from zero up to the largest `int64` of OpenAPI. Others are refused.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Natural(pub(super) u64);

impl TryFrom<i64> for Natural {
    type Error = std::num::TryFromIntError;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        number.try_into().map(Self)
    }
}

/// A JSON body, of any content type, as `curl -d` sends it. The error of an invalid one is an
/// [`ApiError`](crate::control::error::ApiError) too.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Response> {
        let body = match Bytes::from_request(request, state).await {
            Ok(body) => body,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the body has more than {MAX_COMMAND} bytes");
                return Err(refuse(Code::InvalidRequest, message));
            }
            Err(rejection) => return Err(refuse(Code::InvalidRequest, rejection.body_text())),
        };
        let body = serde_json::from_slice(&body);
        body.map(Self).map_err(|error| {
            refuse(Code::InvalidRequest, format!("the body is not what is expected: {error}"))
        })
    }
}
