//! Extension: the session that an agent gets when it claims the job.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer to a claim of the job.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionGrant {
    /// The value of [`SESSION_HEADER`](crate::header::SESSION_HEADER) in all later requests.
    pub secret: String,
    /// Variables for the claimant only. They are added to the job's environment; they win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for SessionGrant {
    /// Without the secret and the values of the variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGrant").field("env", &self.env.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_has_no_secret() {
        let env = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
        let text = format!("{:?}", SessionGrant { secret: "secret".into(), env });
        assert!(text.contains("NAME"));
        assert!(!text.contains("secret") && !text.contains("value"), "{text}");
    }
}
