//! The agent's way into a guest that lacks it: the static program, and the script that installs it.
//!
//! Owns the script's text and the digests in it. Nothing that a guest or a user has said gets
//! into it: names of platforms are checked, everything else is constant.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use metaservice_private::hex;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("delivery/install.sh");

/// The line that the digests replace.
const DIGESTS: &str = "#DIGESTS#\n";

/// The folder of the agents, and the name of the script in it.
const FOLDER: &str = "/engine/v1/agent/";
const SCRIPT: &str = "install";

/// Static agents by their platforms, and what the script that installs them says of each. The
/// script itself is made when it is asked for: most guests have their agent, and a host may have
/// thousands of guests.
#[derive(Default)]
pub(crate) struct Delivery {
    agents: BTreeMap<String, Bytes>,
    digests: String,
}

impl Delivery {
    /// Of agents by `OS-ARCH`.
    pub(crate) fn new(agents: BTreeMap<String, Bytes>) -> Self {
        let digests = digests(&agents);
        Self { agents, digests }
    }

    /// The script, if there is anything to install.
    pub(crate) fn script(&self) -> Option<String> {
        (!self.agents.is_empty()).then(|| TEMPLATE.replace(DIGESTS, &self.digests))
    }

    /// What is at a path, if anything.
    pub(crate) fn find(&self, path: &str) -> Option<Bytes> {
        match path.strip_prefix(FOLDER)? {
            SCRIPT => self.script().map(Bytes::from),
            platform => self.agents.get(platform).cloned(),
        }
    }
}

/// The script's lines for these agents. A platform with characters that no platform has is left out.
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
