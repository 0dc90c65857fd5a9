//! Extension: why an agent did not do what an action asks for.

use serde::{Deserialize, Serialize};

use crate::json;
use crate::limits::{MAX_FAILURE, MAX_FAILURE_MESSAGE};

/// The cause of a [`Failure`], for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum FailureCode {
    /// There is no such file, directory, program or user.
    NotFound,
    /// The agent, or the requested user, does not have the permission.
    PermissionDenied,
    /// The path exists, and is not a plain file.
    NotAFile,
    /// The path exists, and is not a directory.
    #[serde(rename = "not-a-folder")]
    NotADirectory,
    /// The content has changed since the cut: the transfer cannot be resumed.
    Changed,
    /// The guest's disk is full.
    NoSpace,
    /// The guest's file system is read-only.
    ReadOnly,
    /// No program listens on the port.
    #[serde(rename = "refused")]
    ConnectionRefused,
    /// The command does not run, so it cannot get a signal.
    NotRunning,
    /// The request makes no sense to the guest.
    Invalid,
    /// The bytes that arrived are not the bytes that were sent.
    Corrupt,
    /// Anything else, or a code that this version does not know.
    #[serde(other)]
    Other,
}

/// An agent's refusal of an action, or its report that the action failed half-way.
///
/// It is the value of [`FAILURE_HEADER`](crate::header::FAILURE_HEADER), the last block of a
/// transfer that failed, or the detail of a stream's exit.
///
/// ```
/// use metaservice_protocol::{Failure, FailureCode};
///
/// let failure = Failure::new(FailureCode::NotFound, "no such file: /etc/motd");
/// assert_eq!(Failure::from_header(&failure.to_header()), failure);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Failure {
    /// The cause, for programs.
    pub code: FailureCode,
    /// The sentence for people. The guest wrote it. [`new`](Self::new),
    /// [`from_header`](Self::from_header) and [`from_json`](Self::from_json) remove control
    /// characters, and everything beyond [`MAX_FAILURE_MESSAGE`] characters.
    #[serde(default)]
    pub message: String,
}

impl Failure {
    /// A failure with a sanitized message.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }.sanitized()
    }

    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        json::to_header(self)
    }

    /// Reads a header value. An invalid one is a failure too, of code
    /// [`Other`](FailureCode::Other).
    #[must_use]
    pub fn from_header(value: &str) -> Self {
        Self::from_json(value.as_bytes())
    }

    /// The failure as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.to_header().into_bytes()
    }

    /// Reads JSON, as [`from_header`](Self::from_header).
    #[must_use]
    pub fn from_json(json: &[u8]) -> Self {
        let unreadable =
            || Self::new(FailureCode::Other, "the guest gave no reason that can be read");
        if json.len() > MAX_FAILURE {
            return unreadable();
        }
        serde_json::from_slice(json).map_or_else(|_| unreadable(), Self::sanitized)
    }

    /// The failure with a message of at most `characters` characters.
    pub(crate) fn shortened(mut self, characters: usize) -> Self {
        self.message = self.message.chars().take(characters).collect();
        self
    }

    pub(crate) fn sanitized(mut self) -> Self {
        let printable = self.message.chars().filter(|c| !c.is_control());
        self.message = printable.take(MAX_FAILURE_MESSAGE).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_fits_and_is_read_back(message in any::<String>()) {
            let failure = Failure::new(FailureCode::NoSpace, message);
            prop_assert_eq!(Failure::from_header(&failure.to_header()), failure);
        }
    }

    #[test]
    fn a_message_cannot_control_a_terminal() {
        let failure = Failure::new(FailureCode::Other, "\u{1b}[2Jtext");
        assert_eq!(failure.message, "[2Jtext");
    }

    #[test]
    fn a_message_has_a_limit() {
        let failure = Failure::new(FailureCode::Other, "x".repeat(5000));
        assert_eq!(failure.message.len(), MAX_FAILURE_MESSAGE);
        let failure = Failure::new(FailureCode::Other, "\u{10ffff}".repeat(5000));
        assert!(failure.to_json().len() <= MAX_FAILURE);
    }

    #[test]
    fn an_unreadable_failure_is_still_a_failure() {
        assert_eq!(Failure::from_header("what").code, FailureCode::Other);
        assert_eq!(Failure::from_header(r#"{"code":"tired"}"#).code, FailureCode::Other);
        assert_eq!(Failure::from_json(&[b' '; MAX_FAILURE + 1]).code, FailureCode::Other);
    }

    #[test]
    fn names_on_the_wire_are_those_of_the_protocol() {
        let name = |code| serde_json::to_value(code).unwrap();
        assert_eq!(name(FailureCode::NotADirectory), "not-a-folder");
        assert_eq!(name(FailureCode::ConnectionRefused), "refused");
    }
}
