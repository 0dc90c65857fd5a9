//! JSON as a header value: one line of printable ASCII.

use serde::{Deserialize, Serialize};

/// Writes JSON in the characters that a header may carry. Other characters are escaped.
pub(crate) fn to_header<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            // JSON escapes control characters itself. The others only occur within strings.
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii += &format!("\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// Reads a header value; `None` if it has more than `limit` bytes or is invalid.
pub(crate) fn from_header<T: for<'de> Deserialize<'de>>(value: &str, limit: usize) -> Option<T> {
    (value.len() <= limit).then(|| serde_json::from_str(value).ok()).flatten()
}
