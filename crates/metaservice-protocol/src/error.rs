//! The body of every 4xx and 5xx answer.

use serde::{Deserialize, Serialize};

/// What went wrong, as a word that programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The end-point exists but not for this method (405).
    MethodNotAllowed,
    /// Nothing is served at this path (404).
    NoSuchEndPoint,
    /// The service could not do its part (500).
    InternalError,
    /// The job has already been resolved the other way (409).
    ResourceConflict,
    /// The action was never issued, has timed out, or is answered already (400).
    UnknownActionId,
    /// The body is not what this action is answered with (400).
    InvalidPayload,
    /// Extension: the job has been claimed, or must be, and the request lacks the session's
    /// secret (401).
    SessionRequired,
    /// Extension: the request looks as if it had been made on behalf of somebody who cannot reach
    /// the service: forwarded, or for another host (403).
    Forbidden,
    /// Extension: there is no job yet, see [`Renewal`](crate::Renewal) (503).
    NoJob,
}

impl ErrorCode {
    /// The HTTP status that carries this code.
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

/// The body of every 4xx and 5xx answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The word for programs.
    pub code: ErrorCode,
    /// The sentence for people.
    pub message: String,
}
