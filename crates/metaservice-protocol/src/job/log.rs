//! Extension: which bytes of a log a request carries, so that each byte arrives exactly once.
//!
//! The sender numbers the bytes of one log from 0. Each request says at which byte it begins. The
//! sender keeps what no answer has confirmed, and sends it again after a cut; the receiver skips
//! the bytes that it has. Requests are short, so little is unconfirmed at any time.

use serde::{Deserialize, Serialize};

use crate::action::ActionId;
use crate::json;
use crate::limits::MAX_LOG_HEADER;

/// One of the two outputs of a command.
///
/// With a terminal, and for an agent that does not separate them, all output is
/// [`Stdout`](Self::Stdout).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogOutput {
    /// The standard output.
    #[default]
    Stdout,
    /// The standard error.
    Stderr,
}

impl LogOutput {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Whether this is the standard output, which a header does not name.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    const fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }
}

/// The position of a request's body in a log: the value of
/// [`LOG_HEADER`](crate::header::LOG_HEADER).
///
/// ```
/// use metaservice_protocol::LogPlace;
///
/// let place = LogPlace::from_header(r#"{"stream":"job-1","offset":4096}"#).unwrap();
/// assert_eq!(place.offset, 4096);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The sender's id of the log, which is the whole output of one command, or one of two.
    pub stream: ActionId,
    /// The offset of the first byte of this request in the log.
    pub offset: u64,
    /// Which output of the command the bytes are of.
    #[serde(default, skip_serializing_if = "LogOutput::is_stdout")]
    pub output: LogOutput,
}

impl LogPlace {
    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        json::to_header(self)
    }

    /// Reads a header value; `None` if it is longer than [`MAX_LOG_HEADER`] or invalid.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        json::from_header(value, MAX_LOG_HEADER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let stream = ActionId::parse("abc-7").unwrap();
        for output in LogOutput::ALL {
            let place = LogPlace { stream: stream.clone(), offset: u64::MAX, output };
            assert_eq!(LogPlace::from_header(&place.to_header()), Some(place));
        }
    }

    #[test]
    fn the_header_of_stdout_is_the_same_as_before_there_were_two_outputs() {
        let header = r#"{"stream":"a","offset":1}"#;
        let place = LogPlace::from_header(header).unwrap();
        assert_eq!((place.output, place.to_header().as_str()), (LogOutput::Stdout, header));
        let stderr = r#"{"stream":"a","offset":1,"output":"stderr"}"#;
        let place = LogPlace::from_header(stderr).unwrap();
        assert_eq!((place.output, place.to_header().as_str()), (LogOutput::Stderr, stderr));
    }

    #[test]
    fn an_invalid_place_is_none() {
        let long = format!(r#"{{"stream":"{}","offset":1}}"#, "x".repeat(600));
        for value in [
            "",
            "{}",
            r#"{"stream":"a b","offset":1}"#,
            r#"{"stream":"a","offset":-1}"#,
            r#"{"stream":"a","offset":1,"output":"stdin"}"#,
            &long,
        ] {
            assert_eq!(LogPlace::from_header(value), None, "{value}");
        }
    }
}
