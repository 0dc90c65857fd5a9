//! Errors of the handle as responses.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use metaservice_protocol::{Failure, FailureCode};

use crate::control::error::{ApiError, Code};
use crate::handle::error::{ActionError, ChildError, ExecError, ListError, ReadError, WriteError};

/// An error response.
pub(super) fn refuse(code: Code, message: impl Into<String>) -> Response {
    ApiError { code, message: message.into() }.into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.code), Json(self)).into_response()
    }
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest => StatusCode::BAD_REQUEST,
        Code::NoSuchEndPoint | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Refused | Code::Busy => StatusCode::CONFLICT,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::Transport | Code::Other => StatusCode::BAD_GATEWAY,
        Code::Terminated => StatusCode::SERVICE_UNAVAILABLE,
        Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// The guest's own sentence, which is what a person wants to read.
fn failure(failure: &Failure) -> ApiError {
    ApiError { code: failure.code.into(), message: failure.message.clone() }
}

impl From<&ActionError> for ApiError {
    fn from(error: &ActionError) -> Self {
        let code = match error {
            ActionError::Failed(cause) => return failure(cause),
            ActionError::Invalid(cause) => {
                // The cause may quote the guest: `Failure` sanitizes and shortens it.
                let cause = Failure::new(FailureCode::Corrupt, cause.to_string());
                return Self { code: Code::Transport, message: format!("{error}: {cause}") };
            }
            ActionError::TimedOut(_) => Code::TimedOut,
            ActionError::Transport(_) => Code::Transport,
            ActionError::Terminated => Code::Terminated,
            ActionError::Unexpected(_) => Code::Other,
            ActionError::TooManyStreams(_) => Code::Refused,
            ActionError::Unsupported(_) => Code::Unsupported,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<&ExecError> for ApiError {
    fn from(error: &ExecError) -> Self {
        let code = match error {
            ExecError::NotFound(cause) => return failure(cause),
            ExecError::Action(error) => return error.into(),
            ExecError::TooLong => Code::InvalidRequest,
            ExecError::OutputTooLong(_) => Code::Storage,
            ExecError::Child(ChildError::Terminated) => Code::Terminated,
            ExecError::Child(ChildError::Aborted | ChildError::Disconnected) => Code::Transport,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<&ReadError> for ApiError {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::NotFound(cause) => failure(cause),
            ReadError::Action(error) => error.into(),
            ReadError::TooLarge(_) => Self { code: Code::Storage, message: error.to_string() },
            ReadError::Storage(cause) => {
                Self { code: Code::Storage, message: format!("{error}: {cause}") }
            }
        }
    }
}

impl From<&WriteError> for ApiError {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::NotFound(cause) => failure(cause),
            WriteError::Action(error) => error.into(),
            WriteError::Source(_) => {
                Self { code: Code::InvalidRequest, message: error.to_string() }
            }
        }
    }
}

impl From<&ListError> for ApiError {
    fn from(error: &ListError) -> Self {
        match error {
            ListError::NotFound(cause) => failure(cause),
            ListError::Action(error) => error.into(),
        }
    }
}

/// The response of a call that failed.
pub(super) fn failed<E>(error: &E) -> Response
where
    for<'a> ApiError: From<&'a E>,
{
    ApiError::from(error).into_response()
}
