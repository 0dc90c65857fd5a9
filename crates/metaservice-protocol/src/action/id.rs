//! The ids of actions: text that can stand in a URL unescaped.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_ACTION_ID;

/// The id of one action, unique among all that a service issues. It also names the log of a
/// command and a resumable write.
///
/// It consists of characters that need no escaping in a URL's query (RFC 3986, section 2.3), so
/// an id cannot change the request that carries it.
///
/// ```
/// use metaservice_protocol::ActionId;
///
/// assert_eq!(ActionId::parse("a-1").unwrap().as_str(), "a-1");
/// assert!(ActionId::parse("a&id=b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActionId(String);

/// The text is empty, too long, or has a character that is not URL-safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("an action id has 1 to {MAX_ACTION_ID} characters of A-Z a-z 0-9 - . _ ~")]
pub struct InvalidActionId;

impl ActionId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`InvalidActionId`] if `text` is empty, is longer than [`MAX_ACTION_ID`] bytes, or has a
    /// character that is not URL-safe.
    pub fn parse(text: &str) -> Result<Self, InvalidActionId> {
        Self::try_from(text.to_owned())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ActionId {
    type Error = InvalidActionId;

    fn try_from(text: String) -> Result<Self, InvalidActionId> {
        let safe = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
        if text.is_empty() || text.len() > MAX_ACTION_ID || !text.bytes().all(safe) {
            return Err(InvalidActionId);
        }
        Ok(Self(text))
    }
}

impl From<ActionId> for String {
    fn from(id: ActionId) -> Self {
        id.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_never_needs_escaping(text in any::<String>()) {
            if let Ok(id) = ActionId::parse(&text) {
                let unsafe_in_a_query = |c: char| "&=#?/%+ \r\n".contains(c) || !c.is_ascii();
                prop_assert!(!id.as_str().contains(unsafe_in_a_query));
            }
        }
    }

    #[test]
    fn an_id_has_1_to_256_characters() {
        assert!(ActionId::parse("").is_err());
        assert!(ActionId::parse(&"a".repeat(MAX_ACTION_ID)).is_ok());
        assert!(ActionId::parse(&"a".repeat(MAX_ACTION_ID + 1)).is_err());
    }
}
