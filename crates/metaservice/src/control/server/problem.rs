//! Errors as answers, and requests that are none.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use metaservice_protocol::{Failure, FailureCode};

use super::super::{Code, Problem};
use super::MAX_COMMAND;
use crate::handle::actions::ExtensionError;
use crate::handle::error::{ActionError, ArtifactError, ListFolderError};

pub(super) fn refuse(code: Code, message: impl Into<String>) -> Response {
    Problem { code, message: message.into() }.into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (status(self.code), Json(self)).into_response()
    }
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest => StatusCode::BAD_REQUEST,
        Code::NoSuchEndPoint | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Refused => StatusCode::CONFLICT,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Transport | Code::Other => StatusCode::BAD_GATEWAY,
        Code::Terminated => StatusCode::SERVICE_UNAVAILABLE,
        Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl From<&ActionError> for Problem {
    fn from(error: &ActionError) -> Self {
        let code = match error {
            ActionError::TimedOut(_) => Code::TimedOut,
            ActionError::Transport(_) => Code::Transport,
            ActionError::Terminated => Code::Terminated,
            ActionError::Unexpected(_) => Code::Other,
            ActionError::TooMany(_) => Code::Refused,
            ActionError::Invalid(reason) => {
                // It may quote the guest, and becomes as tame as the guest's own sentences.
                let reason = Failure::new(FailureCode::Corrupt, reason.clone());
                let error = ActionError::Invalid(reason.message);
                return Self { code: Code::Transport, message: error.to_string() };
            }
        };
        Self { code, message: error.to_string() }
    }
}

impl From<&ExtensionError> for Problem {
    fn from(error: &ExtensionError) -> Self {
        let code = match error {
            ExtensionError::Action(error) => return error.into(),
            // The guest's own sentence is what a person wants to read.
            ExtensionError::Refused(failure) => {
                return Self { code: failure.code.into(), message: failure.message.clone() };
            }
            ExtensionError::Invalid(cause) => {
                // What is quoted in it is the guest's, and becomes as tame as its own sentences.
                let cause = Failure::new(FailureCode::Corrupt, cause.to_string());
                return Self { code: Code::Transport, message: format!("{error}: {cause}") };
            }
            ExtensionError::Unsupported(_) => Code::Unsupported,
            ExtensionError::TooLarge(_) => Code::Storage,
            ExtensionError::Source(_) | ExtensionError::TooLong => Code::InvalidRequest,
        };
        Self { code, message: error.to_string() }
    }
}

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        Problem::from(&self).into_response()
    }
}

impl IntoResponse for ExtensionError {
    fn into_response(self) -> Response {
        Problem::from(&self).into_response()
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
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!(
                    "the command and its environment have more than {MAX_COMMAND} bytes of JSON"
                );
                Err(refuse(Code::InvalidRequest, message))
            }
            Err(rejection) => Err(refuse(Code::InvalidRequest, rejection.body_text())),
        }
    }
}
