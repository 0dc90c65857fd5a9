//! Extension: what a guest needs after its machine was restored from a snapshot.
//!
//! Many machines can be restored from one snapshot. Until then they share the state of their random
//! number generators, the clock and the host name. The agent replaces these before it starts
//! anything that depends on them.

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
    /// The current time, in nanoseconds since 1970 (UTC). 0: the service does not say.
    pub time_ns: u64,
    /// 512 random bits in hexadecimal digits. Each machine gets its own.
    pub random: String,
    /// The host name, if the machine gets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}
