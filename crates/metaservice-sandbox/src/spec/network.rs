//! The network of a guest, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a guest reaches besides the service, and how it is reached.
///
/// The rules add to the mode. A rule that denies wins. A rule is `NAME[:PORTS]`, `*.NAME[:PORTS]`,
/// `CIDR[:PORTS][/udp]`, `host:PORT` or `public`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// What the guest reaches without a rule. Without: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// Rules that allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Rules that deny.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// A file of rules, or the name of a preset. A file has a slash in its path, or the suffix
    /// `.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// A file that gets a line of JSON for each attempt of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// Ports of the host that lead into the guest: `[ADDR:]PORT:GUEST_PORT[/udp]`. Port 0 of the
    /// host stands for a free one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
}

/// What a guest reaches without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkMode {
    /// Nothing, and there are no rules.
    None,
    /// Public addresses: nothing of this host, and nothing of its private networks.
    Open,
}
