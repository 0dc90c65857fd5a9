//! Exit statuses, after `docker run` and `timeout`.

use std::process::ExitCode;

/// What the process exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExitStatus(pub(crate) u8);

impl ExitStatus {
    pub(crate) const SUCCESS: Self = Self(0);
    /// Something that was looked for is missing, as `doctor` reports it.
    pub(crate) const MISSING: Self = Self(1);
    /// The command was killed by `--timeout`.
    pub(crate) const TIMED_OUT: Self = Self(124);
    /// Standard output has no reader any longer: as of a process that SIGPIPE ends.
    pub(crate) const UNREAD: Self = Self::signal(13);
    /// metaservice itself failed.
    pub(crate) const FAILED: Self = Self(125);

    /// We were told to end by a signal.
    pub(crate) const fn signal(number: u8) -> Self {
        Self(128 + number)
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.0.into()
    }
}
