//! Errors of the control API, on both ends.

use std::io;
use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};
use metaservice_protocol::FailureCode;
use serde::{Deserialize, Serialize};

use super::model::{MAX_TRAILER, PROBLEM_HEADER};
use crate::handle::error::{BoxError, ChildError};
use crate::handle::exec::OutputTooLong;

/// The kind of an error, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum Code {
    /// The request is not valid (400).
    InvalidRequest,
    /// Nothing is served at this path (404).
    NoSuchEndPoint,
    /// The path has no such method (405).
    MethodNotAllowed,
    /// The guest has no such file, directory, program or user (404).
    NotFound,
    /// The guest refuses; the message has the reason (409).
    Refused,
    /// Another client does what only one can do at a time (409).
    Busy,
    /// The guest's agent has not announced that it can do this (501).
    Unsupported,
    /// The guest did not do its part in time (504).
    TimedOut,
    /// The guest's connection broke, or its reply is not valid (502).
    Transport,
    /// The service is ending (503).
    Terminated,
    /// The host or the guest cannot store the bytes (507).
    Storage,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

impl From<FailureCode> for Code {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::NotFound => Self::NotFound,
            FailureCode::Invalid => Self::InvalidRequest,
            FailureCode::NoSpace | FailureCode::ReadOnly => Self::Storage,
            FailureCode::Corrupt => Self::Transport,
            _ => Self::Refused,
        }
    }
}

/// An error response.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = Problem))]
pub(super) struct ApiError {
    /// For programs.
    pub(super) code: Code,
    /// For people.
    pub(super) message: String,
}

impl ApiError {
    /// The error after a body, if there is one. A trailer that cannot be read is an error too.
    pub(super) fn of_trailers(trailers: &HeaderMap) -> Option<ClientError> {
        let value = trailers.get(PROBLEM_HEADER)?;
        Some(match serde_json::from_slice::<Self>(value.as_bytes()) {
            Ok(problem) => problem.into(),
            Err(error) => ClientError::Connection(error.into()),
        })
    }

    /// The error as a trailer; `None` if it is too long for one.
    pub(super) fn to_trailers(&self) -> Option<HeaderMap> {
        let json = serde_json::to_vec(self).ok().filter(|json| json.len() <= MAX_TRAILER)?;
        let name = HeaderName::from_bytes(PROBLEM_HEADER.as_bytes()).ok()?;
        Some(HeaderMap::from_iter([(name, HeaderValue::from_bytes(&json).ok()?)]))
    }
}

/// Why a call of the [`Client`](super::Client) has no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No process listens at the socket.
    #[error("cannot reach the job at {}", .0.display())]
    Unreachable(PathBuf, #[source] io::Error),
    /// The job answered with an error.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: Code,
        /// For people.
        message: String,
    },
    /// The process that serves the job does not answer: it is stopped, or stuck.
    #[error("the job at {} does not answer: its process is stopped or stuck", .0.display())]
    Silent(PathBuf),
    /// The connection to the job broke.
    #[error("the connection to the job broke")]
    Connection(#[source] BoxError),
    /// The command ran, and its end is unknown.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The command ran, and wrote too much.
    #[error(transparent)]
    OutputTooLong(#[from] OutputTooLong),
}

impl ClientError {
    /// The code of the job's error, if the job answered with one.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the guest has no such file, directory, program or user.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }
}

impl From<ApiError> for ClientError {
    fn from(ApiError { code, message }: ApiError) -> Self {
        Self::Refused { code, message }
    }
}
