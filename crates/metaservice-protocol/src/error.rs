//! The body of each 4xx and 5xx answer.

use serde::{Deserialize, Serialize};

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The end-point exists, and does not have this method (405).
    MethodNotAllowed,
    /// There is no end-point at this path (404).
    NoSuchEndPoint,
    /// The service failed (500).
    InternalError,
    /// The job has been resolved the other way already (409).
    ResourceConflict,
    /// The action was never issued, has timed out, or has been answered already (400).
    UnknownActionId,
    /// The body is not a reply to this action (400).
    InvalidPayload,
    /// Extension: the request lacks the secret of the session. An agent has claimed the job, or
    /// must claim it (401).
    SessionRequired,
    /// Extension: the request was probably made on behalf of a program that cannot reach the
    /// service: it was forwarded, or is for another host name (403).
    Forbidden,
    /// Extension: there is no job yet, see [`Renewal`](crate::Renewal) (503).
    NoJob,
}

impl ErrorCode {
    /// The HTTP status of an answer with this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::MethodNotAllowed => 405,
            Self::NoSuchEndPoint => 404,
            Self::InternalError => 500,
            Self::ResourceConflict => 409,
            Self::UnknownActionId | Self::InvalidPayload => 400,
            Self::SessionRequired => 401,
            Self::Forbidden => 403,
            Self::NoJob => 503,
        }
    }
}

/// The body of each 4xx and 5xx answer.
///
/// ```
/// use metaservice_protocol::{ErrorBody, ErrorCode};
///
/// let json = r#"{"code":"UnknownActionId","message":"too late"}"#;
/// let error: ErrorBody = serde_json::from_str(json).unwrap();
/// assert_eq!(error.code, ErrorCode::UnknownActionId);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error, for programs.
    pub code: ErrorCode,
    /// The error, for people.
    pub message: String,
}
