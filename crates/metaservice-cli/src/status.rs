//! The exit statuses of this process, with the values of `docker run` and `timeout`.

use std::process::ExitCode;

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExitStatus(pub(crate) u8);

impl ExitStatus {
    pub(crate) const SUCCESS: Self = Self(0);
    /// `doctor` found that something is missing.
    pub(crate) const MISSING: Self = Self(1);
    /// `net check` found that something is denied.
    pub(crate) const DENIED: Self = Self(1);
    /// `--timeout` killed the command.
    pub(crate) const TIMED_OUT: Self = Self(124);
    /// Standard output was closed: the status of a process that SIGPIPE ends.
    pub(crate) const UNREAD: Self = Self::signal(13);
    /// metaservice itself failed.
    pub(crate) const FAILED: Self = Self(125);

    /// Returns the status for an end by a signal.
    pub(crate) const fn signal(number: u8) -> Self {
        Self(128 + number)
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.0.into()
    }
}
