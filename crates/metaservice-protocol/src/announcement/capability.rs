//! The table of capabilities: what an agent can do beyond version 1.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_CAPABILITIES;

/// Makes [`Capability`] from its rows: a name on the wire for each.
macro_rules! capabilities {
    ($($(#[$doc:meta])+ $capability:ident = $name:literal;)+) => {
        /// A feature of an agent that version 1 does not have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Capability {
            $($(#[$doc])+ $capability,)+
        }

        impl Capability {
            /// All capabilities that this version knows.
            pub const ALL: &[Self] = &[$(Self::$capability),+];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$capability => $name,)+
                }
            }
        }
    };
}

capabilities! {
    /// exec: a command with environment, directory, user, signals and exit code.
    Exec = "exec";
    /// dial: a TCP connection to a port in the guest.
    Dial = "dial";
    /// read: files and directories out of the guest.
    Read = "read";
    /// write: files and directories into the guest.
    Write = "write";
    /// list: the entries of a directory with their attributes.
    List = "list";
    /// stats: the guest's use of its processors, memory, disks and network.
    Stats = "stats";
    /// signal: any signal to the job's command.
    Signal = "signal";
    /// The job's command can have a terminal.
    Terminal = "terminal";
    /// An agent that waits for a job accepts a [`Renewal`](crate::Renewal) when it gets one.
    Renew = "renew";
    /// An exec can be as large as [`MAX_ACTION`](crate::limits::MAX_ACTION).
    LargeExec = "large-exec";
    /// The job's command can have a working directory, a user, a host name and an entry point of
    /// its own, and wait for a start action.
    Launch = "launch";
    /// attach: the job's command can have a standard input that the host feeds.
    Attach = "attach";
    /// The job's stdout and stderr can be two logs.
    Streams = "streams";
    /// The agent mounts the job's [`Volume`](crate::Volume)s.
    Volumes = "volumes";
}

// The set has one bit for each.
const _: () = assert!(Capability::ALL.len() <= u16::BITS as usize);

/// A set of capabilities. Names that this version does not know are ignored.
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
    /// All capabilities that this version knows.
    #[must_use]
    pub fn all() -> Self {
        Capability::ALL.iter().copied().collect()
    }

    /// Whether the set contains this capability.
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
    fn from(names: Vec<String>) -> Self {
        let known = |name: &String| Capability::ALL.iter().find(|c| c.name() == name).copied();
        names.iter().take(MAX_CAPABILITIES).filter_map(known).collect()
    }
}

impl From<Capabilities> for Vec<&'static str> {
    fn from(set: Capabilities) -> Self {
        Capability::ALL.iter().filter(|c| set.has(**c)).map(|c| c.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_written_by_names() {
        let json = serde_json::to_value(Capabilities::all()).unwrap();
        let names = [
            "exec",
            "dial",
            "read",
            "write",
            "list",
            "stats",
            "signal",
            "terminal",
            "renew",
            "large-exec",
            "launch",
            "attach",
            "streams",
            "volumes",
        ];
        assert_eq!(json, serde_json::json!(names));
    }

    #[test]
    fn a_set_contains_what_was_put_in() {
        for &one in Capability::ALL {
            let set: Capabilities = [one].into_iter().collect();
            for &other in Capability::ALL {
                assert_eq!(set.has(other), one == other);
            }
        }
    }
}
