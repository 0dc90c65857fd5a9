//! Extension: why an agent does not do what an extended action asks for.

use serde::{Deserialize, Serialize};

use crate::announcement::ascii_json;
use crate::limits::{MAX_FAILURE, MAX_FAILURE_MESSAGE};

/// What is wrong, as a word that programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// There is no such file, folder, program or user.
    NotFound,
    /// The agent, or the user it is to act as, may not.
    PermissionDenied,
    /// It is there, and is not a plain file.
    NotAFile,
    /// It is there, and is not a folder.
    NotAFolder,
    /// What was read before the cut is not what is there now: it cannot be resumed.
    Changed,
    /// The guest's disk is full.
    NoSpace,
    /// The guest's file system is read-only.
    ReadOnly,
    /// Nobody listens at the port.
    Refused,
    /// The command is not running, so it cannot be sent a signal.
    NotRunning,
    /// What was asked for makes no sense to the guest.
    Invalid,
    /// The bytes that arrived are not the bytes that were sent.
    Corrupt,
    /// Anything else; also a code that this version does not know.
    #[serde(other)]
    Other,
}

/// An agent's refusal, or its report that something went wrong half-way: the value of
/// [`FAILURE_HEADER`](crate::endpoint::FAILURE_HEADER), the end of a transfer, the detail of a
/// stream's exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people. It is the guest's word: no control characters are in it once it was read by
    /// [`from_header`](Self::from_header) or [`from_json`](Self::from_json), and at most
    /// [`MAX_FAILURE_MESSAGE`](crate::limits::MAX_FAILURE_MESSAGE) characters.
    #[serde(default)]
    pub message: String,
}

impl Failure {
    /// A failure, its message cut to what a peer accepts.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }.tamed()
    }

    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        ascii_json(self)
    }

    /// Reads a header value. One that cannot be read is still a failure, of code
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
        let unread = || Self::new(FailureCode::Other, "the guest gave no reason that can be read");
        if json.len() > MAX_FAILURE {
            return unread();
        }
        serde_json::from_slice(json).map_or_else(|_| unread(), Self::tamed)
    }

    fn tamed(mut self) -> Self {
        let tame = self.message.chars().filter(|c| !c.is_control());
        self.message = tame.take(MAX_FAILURE_MESSAGE).collect();
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
    fn a_message_is_bounded_and_cannot_write_to_a_terminal() {
        let failure = Failure::new(FailureCode::Other, format!("\u{1b}[2J{}", "x".repeat(5000)));
        assert!(failure.message.starts_with("[2J"));
        assert_eq!(failure.message.len(), MAX_FAILURE_MESSAGE);
        assert!(
            Failure::new(FailureCode::Other, "\u{10ffff}".repeat(5000)).to_json().len()
                <= MAX_FAILURE
        );
    }

    #[test]
    fn what_cannot_be_read_is_a_failure_all_the_same() {
        assert_eq!(Failure::from_header("what").code, FailureCode::Other);
        assert_eq!(Failure::from_header(r#"{"code":"tired"}"#).code, FailureCode::Other);
        assert_eq!(Failure::from_json(&[b' '; MAX_FAILURE + 1]).code, FailureCode::Other);
    }
}
