//! Errors as answers, and requests that are none.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::super::{Code, Problem};
use crate::error::{ActionError, ArtifactError, ListFolderError};
use crate::extension::ExtensionError;

pub(super) fn refuse(code: Code, message: impl Into<String>) -> Response {
    let status = match code {
        Code::InvalidRequest => StatusCode::BAD_REQUEST,
        Code::NoSuchEndPoint | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Refused => StatusCode::CONFLICT,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Transport | Code::Other => StatusCode::BAD_GATEWAY,
        Code::Terminated => StatusCode::SERVICE_UNAVAILABLE,
        Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
    };
    (status, Json(Problem { code, message: message.into() })).into_response()
}

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::TimedOut(_) => Code::TimedOut,
            Self::Transport(_) => Code::Transport,
            Self::Terminated => Code::Terminated,
            Self::TooMany(_) => Code::Refused,
        };
        refuse(code, self.to_string())
    }
}

impl IntoResponse for ExtensionError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::Action(error) => return error.into_response(),
            Self::Unsupported(_) => Code::Unsupported,
            Self::Refused(ref failure) => failure.code.into(),
            Self::Invalid(_) => Code::Transport,
            Self::TooLarge(_) => Code::Storage,
            Self::Source(_) => Code::InvalidRequest,
        };
        // The guest's own sentence is what a person wants to read.
        let message = match &self {
            Self::Refused(failure) => failure.message.clone(),
            other => other.to_string(),
        };
        refuse(code, message)
    }
}

impl IntoResponse for ArtifactError {
    fn into_response(self) -> Response {
        let code = match self {
            Self::Action(error) => return error.into_response(),
            Self::NotFound => Code::NotFound,
            Self::Refused(ref failure) => failure.code.into(),
            Self::Damaged(_) => Code::Transport,
            Self::Storage(ref cause) => {
                return refuse(Code::Storage, format!("{self}: {cause}"));
            }
        };
        refuse(code, self.to_string())
    }
}

impl IntoResponse for ListFolderError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => refuse(Code::NotFound, self.to_string()),
            Self::Action(error) => error.into_response(),
        }
    }
}

/// The parameters of a request; what cannot be read of them is told as our error.
#[derive(Debug)]
pub(in super::super) struct Query<T>(pub(super) T);

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

/// A number from zero up that OpenAPI's `int64` can say: what is beyond it is refused as what is
/// below zero is.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "i64")]
pub(in super::super) struct Natural(pub(super) u64);

impl TryFrom<i64> for Natural {
    type Error = std::num::TryFromIntError;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        number.try_into().map(Self)
    }
}

/// A body of JSON; what cannot be read of it is told as our error.
#[derive(Debug)]
pub(in super::super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Response> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refuse(Code::InvalidRequest, rejection.body_text())),
        }
    }
}
