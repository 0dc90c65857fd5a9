//! What a job can ask of an agent beyond version 1.

use std::fmt;

/// Something that a job can ask of an agent beyond version 1.
///
/// Its `Display` completes the sentence "The agent cannot ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// The working directory of the command.
    Workdir,
    /// The user of the command.
    User,
    /// The words in front of the command.
    Entrypoint,
    /// A stdin that the host feeds.
    Stdin,
    /// Files that are in place before the command starts.
    Hold,
    /// The guest's host name.
    Hostname,
    /// Stdout and stderr as two outputs of the log.
    Streams,
    /// Directories of the host.
    Volumes,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workdir => "set the working directory of the command",
            Self::User => "set the user of the command",
            Self::Entrypoint => "set the entry point of the command",
            Self::Stdin => "feed the stdin of the command",
            Self::Hold => "hold the command back until files are in place",
            Self::Hostname => "set the host name",
            Self::Streams => "deliver stdout and stderr separately",
            Self::Volumes => "mount directories of the host",
        })
    }
}
