//! Extension: who the two sides are and what they can do beyond version 1.
//!
//! An agent of ours says it in a header of each `execute` and `poll` request
//! ([`AGENT_HEADER`](crate::endpoint::AGENT_HEADER)); a service of ours answers such a request,
//! and no other, with a header of its own ([`SERVICE_HEADER`](crate::endpoint::SERVICE_HEADER)).
//! Both are one line of ASCII JSON. Saying it each time costs some bytes and saves a state:
//! either side may be restarted, and what a poll announces holds for what that poll takes.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_ANNOUNCEMENT, MAX_CAPABILITIES};

/// Something that version 1 does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// exec: environment, folder, user, signals, exit code.
    Exec,
    /// dial: a TCP connection to a port in the guest.
    Dial,
    /// read: files and folders out of the guest.
    Read,
    /// write: files and folders into the guest.
    Write,
    /// list: the entries of a folder with their attributes.
    List,
    /// stats: what the guest's processors, memory, disks and network do.
    Stats,
    /// signal: any signal to the job's command.
    Signal,
    /// The job's command can have a terminal.
    Terminal,
    /// renewal: an agent that waits for a job becomes somebody else's when it gets one.
    Renew,
    /// An exec may be as large as [`MAX_ACTION`](crate::limits::MAX_ACTION).
    LargeExec,
}

impl Capability {
    /// All that this version knows.
    pub const ALL: [Self; 10] = [
        Self::Exec,
        Self::Dial,
        Self::Read,
        Self::Write,
        Self::List,
        Self::Stats,
        Self::Signal,
        Self::Terminal,
        Self::Renew,
        Self::LargeExec,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Dial => "dial",
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Stats => "stats",
            Self::Signal => "signal",
            Self::Terminal => "terminal",
            Self::Renew => "renew",
            Self::LargeExec => "large-exec",
        }
    }
}

/// A set of capabilities. Words that this version does not know are passed over.
///
/// ```
/// use metaservice_protocol::{Capabilities, Capability};
///
/// let some: Capabilities = serde_json::from_str(r#"["exec","teleport"]"#).unwrap();
/// assert!(some.has(Capability::Exec) && !some.has(Capability::Dial));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<&'static str>")]
pub struct Capabilities(u16);

impl Capabilities {
    /// All that this version knows.
    #[must_use]
    pub fn all() -> Self {
        Capability::ALL.into_iter().collect()
    }

    /// Whether a capability is among them.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u16) != 0
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        Self(capabilities.into_iter().fold(0, |set, capability| set | 1 << capability as u16))
    }
}

impl From<Vec<String>> for Capabilities {
    fn from(words: Vec<String>) -> Self {
        let known = |word: &String| Capability::ALL.into_iter().find(|c| c.name() == word);
        words.iter().take(MAX_CAPABILITIES).filter_map(known).collect()
    }
}

impl From<Capabilities> for Vec<&'static str> {
    fn from(set: Capabilities) -> Self {
        Capability::ALL.into_iter().filter(|c| set.has(*c)).map(Capability::name).collect()
    }
}

/// What an agent says of itself: the value of the agent header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Agent {
    /// The agent's version.
    pub version: String,
    /// The guest's operating system, for instance `linux`.
    pub os: String,
    /// The guest's processor, for instance `x86_64`.
    pub arch: String,
    /// The kernel's release, for instance `6.1.0-56-amd64`.
    pub kernel: String,
    /// What it can do beyond version 1.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub capabilities: Capabilities,
}

/// What a service says of itself: the value of the service header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// The service's version.
    pub version: String,
    /// Whether a shell's websocket may be dialled as
    /// [`SHELL_PROTOCOL`](crate::endpoint::SHELL_PROTOCOL).
    pub shell2: bool,
    /// Whether log requests may be numbered, with a
    /// [`LOG_HEADER`](crate::endpoint::LOG_HEADER).
    pub log: bool,
    /// Whether the job is to be claimed at [`Endpoint::Session`](crate::Endpoint::Session).
    pub session: bool,
    /// Whether the connection of a request may be used for the next one.
    pub keep_alive: bool,
    /// Whether there is no job yet, and [`Endpoint::Renewal`](crate::Endpoint::Renewal) is to be
    /// waited for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub renewal: bool,
}

impl Service {
    /// Whether this was announced at all; a host of version 1 says nothing of itself.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        !self.version.is_empty()
    }
}

impl Agent {
    /// The header value. Characters outside of printable ASCII are escaped.
    #[must_use]
    pub fn to_header(&self) -> String {
        ascii_json(self)
    }

    /// Reads a header value; `None`, as if there were none, for one that is longer than
    /// [`MAX_ANNOUNCEMENT`](crate::limits::MAX_ANNOUNCEMENT) or is no announcement.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        from_header(value)
    }
}

impl Service {
    /// The header value. Characters outside of printable ASCII are escaped.
    #[must_use]
    pub fn to_header(&self) -> String {
        ascii_json(self)
    }

    /// Reads a header value, as [`Agent::from_header`].
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        from_header(value)
    }
}

fn from_header<T: for<'de> Deserialize<'de>>(value: &str) -> Option<T> {
    (value.len() <= MAX_ANNOUNCEMENT).then(|| serde_json::from_str(value).ok()).flatten()
}

/// JSON in the characters that a header may carry: everything else is escaped.
pub(crate) fn ascii_json<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            // Control characters are escaped already: what is left stands inside a string.
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii += &format!("\\u{unit:04x}");
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_agent_fits_a_header_and_is_read_back(
            version in ".{0,40}", kernel in any::<String>(), count in 0usize..=10,
        ) {
            let capabilities = Capability::ALL.into_iter().take(count).collect();
            let agent = Agent { version, kernel, capabilities, ..Agent::default() };
            let header = agent.to_header();
            prop_assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
            if header.len() <= MAX_ANNOUNCEMENT {
                prop_assert_eq!(Agent::from_header(&header), Some(agent));
            } else {
                prop_assert_eq!(Agent::from_header(&header), None);
            }
        }
    }

    #[test]
    fn what_the_future_adds_is_passed_over() {
        let agent = Agent::from_header(r#"{"capabilities":["read","fly"],"x":1}"#).unwrap();
        assert_eq!(agent.capabilities, [Capability::Read].into_iter().collect());
        assert_eq!(Agent::from_header("7"), None);
        assert_eq!(Service::from_header("{}"), Some(Service::default()));
    }

    #[test]
    fn the_set_is_written_in_words() {
        let json = serde_json::to_string(&Capabilities::all()).unwrap();
        let words = r#"["exec","dial","read","write","list","stats","signal","terminal","renew","large-exec"]"#;
        assert_eq!(json, words);
    }
}
