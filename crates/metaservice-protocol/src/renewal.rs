//! Extension: what is new for a guest that was stopped while it had no job, and goes on as
//! another machine.
//!
//! Many machines may go on from the same moment. What they share then (the state of the random
//! number generators, the clock, the name) is replaced by what this says before anything is done
//! that depends on it.

use serde::{Deserialize, Serialize};

/// The answer of [`Endpoint::Renewal`](crate::Endpoint::Renewal). Unknown members are ignored.
///
/// ```
/// use metaservice_protocol::Renewal;
///
/// let json = r#"{"timeNs":1700000000000000000,"random":"00ff"}"#;
/// let renewal: Renewal = serde_json::from_str(json).unwrap();
/// assert_eq!(renewal.hostname, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Renewal {
    /// The time now, in nanoseconds since 1970 (UTC); 0 when the service does not say.
    pub time_ns: u64,
    /// Random bits that no other machine is told, in hexadecimal digits: 512 of them.
    pub random: String,
    /// The machine's name, if it is to have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}
