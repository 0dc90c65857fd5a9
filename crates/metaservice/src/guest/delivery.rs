//! The agent for a guest that has none: the static program, and the script that installs it.
//!
//! Owns the text of the script and the digests in it. Nothing that comes from a guest or a user
//! becomes part of it: the names of platforms are checked, everything else is constant.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use metaservice_private::hex;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("delivery/install.sh");

/// The line that is replaced by the digests.
const DIGESTS: &str = "#DIGESTS#\n";

/// The path of the agents, and the name of the script below it.
const PREFIX: &str = "/engine/v1/agent/";
const SCRIPT: &str = "install";

/// Static agents by platform, and their digests for the script. The script is created for each
/// request: most guests have an agent already, and a host may have thousands of guests.
#[derive(Default)]
pub(crate) struct Delivery {
    agents: BTreeMap<String, Bytes>,
    digests: String,
}

impl Delivery {
    /// `agents` are by platform, as `OS-ARCH`.
    pub(crate) fn new(agents: BTreeMap<String, Bytes>) -> Self {
        let digests = digests(&agents);
        Self { agents, digests }
    }

    /// The script, if there is an agent to install.
    pub(crate) fn script(&self) -> Option<String> {
        (!self.agents.is_empty()).then(|| TEMPLATE.replace(DIGESTS, &self.digests))
    }

    /// The content at a path.
    pub(crate) fn find(&self, path: &str) -> Option<Bytes> {
        match path.strip_prefix(PREFIX)? {
            SCRIPT => self.script().map(Bytes::from),
            platform => self.agents.get(platform).cloned(),
        }
    }
}

/// The script's lines for these agents. A platform with other characters than a name's is left out.
fn digests(agents: &BTreeMap<String, Bytes>) -> String {
    let mut digests = String::new();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    for (platform, agent) in agents.iter().filter(|(platform, _)| platform.chars().all(plain)) {
        let _ =
            writeln!(digests, "        {platform}) expected={} ;;", hex(&Sha256::digest(agent)));
    }
    digests
}

#[cfg(test)]
mod tests;
