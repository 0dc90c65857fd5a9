//! Errors as responses.

use std::error::Error;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use metaservice::control::{ClientError, Code as JobCode};
use serde::Serialize;

use crate::log::{AccessError, InvalidPattern, ReadError};
use crate::source::SourceError;

/// The kind of an error, for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Code {
    /// `Host`, `Origin` or the site is not that of the page.
    Foreign,
    /// There is no session, or the token is wrong.
    NoSession,
    /// There were too many wrong tokens.
    TooMany,
    /// The user may not do it.
    Denied,
    /// There is no such job or file.
    NotFound,
    /// Another job has this name now, or its log was closed: open it again.
    Gone,
    /// No log of the job is kept.
    NoLog,
    /// The job waits for a worker: it has nothing yet.
    Waits,
    /// The request is not valid.
    Invalid,
    /// The job does not do it.
    Refused,
    /// The job, its guest or its source cannot do it.
    Unsupported,
    /// The job or its files cannot be reached.
    Failed,
}

impl Code {
    const fn status(self) -> StatusCode {
        match self {
            Self::Foreign | Self::Denied => StatusCode::FORBIDDEN,
            Self::NoSession => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound | Self::NoLog => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Refused | Self::Unsupported | Self::Waits => StatusCode::CONFLICT,
            Self::Failed => StatusCode::BAD_GATEWAY,
        }
    }
}

/// An error response.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    code: Code,
    message: String,
}

/// An error response.
pub(super) fn refuse(code: Code, message: impl Into<String>) -> Refused {
    Refused { code, message: message.into() }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}

/// The message of an error and of its causes.
pub(super) fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Access(error) => error.into(),
            ReadError::Replaced => refuse(Code::Gone, whole(&error)),
        }
    }
}

impl From<AccessError> for Refused {
    fn from(error: AccessError) -> Self {
        let code = match error {
            AccessError::Source(error) => return error.into(),
            AccessError::NoLog => Code::NoLog,
            AccessError::Waits => Code::Waits,
            AccessError::Client(ClientError::Refused { code: JobCode::NotFound, .. }) => {
                Code::NoLog
            }
            AccessError::Client(_) | AccessError::Io(_) => Code::Failed,
        };
        refuse(code, whole(&error))
    }
}

impl From<SourceError> for Refused {
    fn from(error: SourceError) -> Self {
        let code = match error {
            SourceError::NotFound => Code::NotFound,
            SourceError::Refused(_) => Code::Refused,
            SourceError::Unsupported => Code::Unsupported,
            SourceError::Failed(_) => Code::Failed,
        };
        refuse(code, whole(&error))
    }
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        let code = match error.code() {
            Some(JobCode::NotFound) => Code::NotFound,
            Some(JobCode::Unsupported) => Code::Unsupported,
            Some(JobCode::InvalidRequest) => Code::Invalid,
            Some(_) => Code::Refused,
            None => Code::Failed,
        };
        refuse(code, whole(&error))
    }
}

impl From<InvalidPattern> for Refused {
    fn from(error: InvalidPattern) -> Self {
        refuse(Code::Invalid, whole(&error))
    }
}

impl From<QueryRejection> for Refused {
    fn from(error: QueryRejection) -> Self {
        refuse(Code::Invalid, error.body_text())
    }
}

impl From<JsonRejection> for Refused {
    fn from(error: JsonRejection) -> Self {
        refuse(Code::Invalid, error.body_text())
    }
}
