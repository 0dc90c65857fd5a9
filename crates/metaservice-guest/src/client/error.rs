//! Why a request did not get the response that it was made for.

use std::io;
use std::time::Duration;

use metaservice_protocol::ErrorBody;
use tokio_tungstenite::tungstenite;

/// How much of a service's message is shown.
const MAX_MESSAGE: usize = 300;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection could be made.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection broke, or the service did not send HTTP.
    #[error("the connection failed")]
    Transport(#[from] hyper::Error),
    /// No byte moved for this long.
    #[error("no answer for {} s", .0.as_secs())]
    Silent(Duration),
    /// The service answered with a status that is not success.
    #[error("the service answered {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Status {
        status: u16,
        /// The service's own message, without control characters. May be empty.
        message: String,
    },
    /// The body is larger than this many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The body is not the expected JSON.
    #[error("the answer cannot be read")]
    Payload(#[from] serde_json::Error),
    /// The websocket of a stream could not be opened.
    #[error("the websocket handshake failed")]
    Handshake(#[source] Box<tungstenite::Error>),
}

impl ClientError {
    /// The error for a status with this body.
    pub(super) fn from_status(status: u16, body: &[u8]) -> Self {
        let message = serde_json::from_slice(body).map_or(String::new(), |body: ErrorBody| {
            body.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
        });
        Self::Status { status, message }
    }

    /// Whether the connection failed. Then the service may not have seen the request.
    pub(crate) const fn is_transport(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Transport(_) | Self::Silent(_) => true,
            Self::Handshake(error) => !matches!(**error, tungstenite::Error::Http(_)),
            Self::Status { .. } | Self::TooLarge(_) | Self::Payload(_) => false,
        }
    }

    /// Whether the connection broke, as an idle connection does that the host has closed.
    pub(super) const fn is_cut(&self) -> bool {
        matches!(self, Self::Transport(_))
    }

    /// The status, if the service answered.
    pub(crate) const fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_services_message_without_escapes() {
        let body = br#"{"code":"InternalError","message":"disk \u001b[31mfull"}"#;
        let error = ClientError::from_status(500, body);
        assert_eq!(error.to_string(), "the service answered 500: disk [31mfull");
        let error = ClientError::from_status(404, b"<html>");
        assert_eq!(error.to_string(), "the service answered 404");
        assert_eq!(ClientError::from_status(404, b"").status(), Some(404));
    }
}
