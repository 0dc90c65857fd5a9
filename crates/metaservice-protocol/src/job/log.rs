//! Extension: which bytes of a log a request carries, so that each byte arrives exactly once.
//!
//! The sender numbers the bytes of one log from 0. Each request says at which byte it begins. The
//! sender keeps what no answer has confirmed, and sends it again after a cut; the receiver skips
//! the bytes that it has. Requests are short, so little is unconfirmed at any time.

use serde::{Deserialize, Serialize};

use crate::action::ActionId;
use crate::json;
use crate::limits::MAX_LOG_HEADER;

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
    /// The sender's id of the log, which is the whole output of one command.
    pub stream: ActionId,
    /// The offset of the first byte of this request in the log.
    pub offset: u64,
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
        let place = LogPlace { stream, offset: u64::MAX };
        assert_eq!(LogPlace::from_header(&place.to_header()), Some(place));
    }

    #[test]
    fn an_invalid_place_is_none() {
        let long = format!(r#"{{"stream":"{}","offset":1}}"#, "x".repeat(600));
        for value in
            ["", "{}", r#"{"stream":"a b","offset":1}"#, r#"{"stream":"a","offset":-1}"#, &long]
        {
            assert_eq!(LogPlace::from_header(value), None, "{value}");
        }
    }
}
