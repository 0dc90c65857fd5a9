//! Extension: where the bytes of a log request belong, so that none is lost and none comes twice.
//!
//! A sender numbers the bytes of one log from 0 and says with each request where it begins. It
//! keeps what no request has confirmed, and after a cut it sends that again; the receiver passes
//! over what it has. A request is short, so that little is ever in doubt.

use serde::{Deserialize, Serialize};

use crate::action::ActionId;
use crate::announcement::ascii_json;
use crate::limits::MAX_LOG_HEADER;

/// The place of a request's body in a log: the value of
/// [`LOG_HEADER`](crate::endpoint::LOG_HEADER).
///
/// ```
/// use metaservice_protocol::LogPlace;
///
/// let place = LogPlace::from_header(r#"{"stream":"job-1","offset":4096}"#).unwrap();
/// assert_eq!(place.offset, 4096);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The sender's name for the log: of one command's whole output.
    pub stream: ActionId,
    /// How many bytes of the log come before this request's.
    pub offset: u64,
}

impl LogPlace {
    /// The header value.
    #[must_use]
    pub fn to_header(&self) -> String {
        ascii_json(self)
    }

    /// Reads a header value; `None` for one that is no place.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        (value.len() <= MAX_LOG_HEADER).then(|| serde_json::from_str(value).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_anything_else_is_none() {
        let stream = ActionId::parse("abc-7").unwrap();
        let place = LogPlace { stream, offset: u64::MAX };
        assert_eq!(LogPlace::from_header(&place.to_header()), Some(place));
        let long = format!(r#"{{"stream":"{}","offset":1}}"#, "x".repeat(600));
        for other in
            ["", "{}", r#"{"stream":"a b","offset":1}"#, r#"{"stream":"a","offset":-1}"#, &long]
        {
            assert_eq!(LogPlace::from_header(other), None, "{other}");
        }
    }
}
