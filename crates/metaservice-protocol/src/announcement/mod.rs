//! Extension: how the two sides announce what they are and can do beyond version 1.
//!
//! An agent with extensions sends [`AgentInfo`] with each `execute` and `poll` request, in
//! [`AGENT_HEADER`](crate::header::AGENT_HEADER). A service with extensions answers such a request
//! with [`ServiceInfo`], in [`SERVICE_HEADER`](crate::header::SERVICE_HEADER). Both are one line of
//! ASCII JSON. Repeating it costs some bytes and saves a state: each side can restart, and the
//! capabilities of a poll apply to the action that this poll takes.

mod capability;

pub use capability::{Capabilities, Capability};

use serde::{Deserialize, Serialize};

use crate::json;
use crate::limits::MAX_ANNOUNCEMENT;

/// What an agent announces: the value of [`AGENT_HEADER`](crate::header::AGENT_HEADER).
///
/// ```
/// use metaservice_protocol::{AgentInfo, Capabilities};
///
/// let agent = AgentInfo {
///     os: "linux".into(),
///     capabilities: Capabilities::all(),
///     ..AgentInfo::default()
/// };
/// assert_eq!(AgentInfo::from_header(&agent.to_header()), Some(agent));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = Agent))]
pub struct AgentInfo {
    /// The agent's version.
    pub version: String,
    /// The guest's operating system, for example `linux`.
    pub os: String,
    /// The guest's architecture, for example `x86_64`.
    pub arch: String,
    /// The release of the guest's kernel, for example `6.1.0-56-amd64`.
    pub kernel: String,
    /// What the agent can do beyond version 1.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub capabilities: Capabilities,
}

impl AgentInfo {
    /// The header value. Characters that are not printable ASCII are escaped.
    #[must_use]
    pub fn to_header(&self) -> String {
        json::to_header(self)
    }

    /// Reads a header value; `None` if it is longer than [`MAX_ANNOUNCEMENT`] or invalid. Then the
    /// agent counts as one of version 1.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        json::from_header(value, MAX_ANNOUNCEMENT)
    }
}

/// What a service announces: the value of [`SERVICE_HEADER`](crate::header::SERVICE_HEADER).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceInfo {
    /// The service's version.
    pub version: String,
    /// Whether the service accepts shell streams of
    /// [`StreamProtocol::V2`](crate::shell::StreamProtocol::V2).
    pub shell2: bool,
    /// Whether log requests may have a [`LOG_HEADER`](crate::header::LOG_HEADER).
    pub log: bool,
    /// Whether the agent must claim the job at [`Endpoint::Session`](crate::Endpoint::Session).
    pub session: bool,
    /// Whether the agent may send several requests on one connection.
    pub keep_alive: bool,
    /// Whether there is no job yet: the agent waits at
    /// [`Endpoint::Renewal`](crate::Endpoint::Renewal).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub renewal: bool,
}

impl ServiceInfo {
    /// Whether the service has announced anything. A service of version 1 has not.
    #[must_use]
    pub const fn has_extensions(&self) -> bool {
        !self.version.is_empty()
    }

    /// The header value. Characters that are not printable ASCII are escaped.
    #[must_use]
    pub fn to_header(&self) -> String {
        json::to_header(self)
    }

    /// Reads a header value; `None` if it is longer than [`MAX_ANNOUNCEMENT`] or invalid.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        json::from_header(value, MAX_ANNOUNCEMENT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_agent_fits_a_header_and_is_read_back(
            version in ".{0,40}", kernel in any::<String>(), count in 0usize..=Capability::ALL.len(),
        ) {
            let capabilities = Capability::ALL.iter().copied().take(count).collect();
            let agent = AgentInfo { version, kernel, capabilities, ..AgentInfo::default() };
            let header = agent.to_header();
            prop_assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
            let fits = header.len() <= MAX_ANNOUNCEMENT;
            prop_assert_eq!(AgentInfo::from_header(&header), fits.then_some(agent));
        }
    }

    #[test]
    fn unknown_members_and_capabilities_are_ignored() {
        let header = r#"{"capabilities":["read","fly"],"x":1}"#;
        let agent = AgentInfo::from_header(header).unwrap();
        assert_eq!(agent.capabilities, [Capability::Read].into_iter().collect());
        assert_eq!(ServiceInfo::from_header("{}"), Some(ServiceInfo::default()));
    }

    #[test]
    fn a_header_that_is_no_announcement_is_of_version_1() {
        assert_eq!(AgentInfo::from_header("7"), None);
        assert!(!ServiceInfo::default().has_extensions());
    }
}
