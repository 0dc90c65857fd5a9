//! Errors as the guest gets them: a status, and a code and a sentence as JSON.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use metaservice_protocol::{ErrorBody, ErrorCode};

pub(crate) const CONTENT_TYPE_JSON: (header::HeaderName, HeaderValue) =
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// An error response.
#[derive(Debug)]
pub(crate) struct HttpError {
    code: ErrorCode,
    message: String,
}

impl HttpError {
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

    /// The same error with another status than its code has.
    pub(crate) fn with_status(self, status: StatusCode) -> Response {
        json(status, &ErrorBody { code: self.code, message: self.message })
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status());
        self.with_status(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// A value as a JSON response.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    // The values are plain structs of strings: serialization cannot fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [CONTENT_TYPE_JSON], body).into_response()
}

/// The response if the state that a response confirms cannot be written.
// `map_err` passes it by value.
#[allow(clippy::needless_pass_by_value)]
pub(crate) fn not_persisted(error: std::io::Error) -> HttpError {
    tracing::warn!(%error, "the job's state cannot be written");
    HttpError::new(ErrorCode::InternalError, "the job's state cannot be written")
}
