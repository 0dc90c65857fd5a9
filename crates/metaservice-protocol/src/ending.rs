//! Extension: how exactly a job's command came to its end.
//!
//! Version 1 knows only success and failure. An agent of ours adds this detail as
//! the header [`RESULT_HEADER`](crate::endpoint::RESULT_HEADER) of its `success` or
//! `failed` request: one line of ASCII JSON, which a host that does not know it
//! ignores as it ignores any unknown header.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_RESULT_HEADER;

/// Why the command is no longer running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Reason {
    /// It returned an exit code.
    Exited,
    /// A signal that nobody asked us to send ended it.
    Signaled,
    /// The host asked for its end by kill-process.
    Killed,
    /// The host asked for its end because its time was over.
    TimedOut,
    /// It could not be started: the program does not exist.
    NotFound,
    /// It could not be started: the program exists but cannot be run.
    NotExecutable,
    /// The agent lost sight of it, for instance by a crash of its own supervisor.
    Lost,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// How the command ended.
///
/// ```
/// use metaservice_protocol::{Ending, Reason};
///
/// let ending = Ending { exit_code: Some(3), ..Ending::new(Reason::Exited) };
/// let header = ending.to_header();
/// assert_eq!(header, r#"{"reason":"exited","exitCode":3}"#);
/// assert_eq!(Ending::from_header(&header), Some(ending));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ending {
    /// Why it ended.
    pub reason: Reason,
    /// The exit code, where there is one (0 to 255).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The number of the signal that ended it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// How long it ran, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Processor time that it and its waited-for descendants spent in user mode, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_ms: Option<u64>,
    /// Processor time that they spent in the kernel, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_ms: Option<u64>,
    /// The most memory that one of them held, in bytes (resident).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// How many processes the guest's kernel killed for lack of memory while it ran: of its control
    /// group where that counts them, else of the machine. Absent when there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u32>,
}

impl Ending {
    /// An ending with nothing but its reason.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            exit_code: None,
            signal: None,
            wall_ms: None,
            cpu_user_ms: None,
            cpu_system_ms: None,
            peak_memory: None,
            oom_kills: None,
        }
    }

    /// Whether this is what the protocol calls success: exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.reason == Reason::Exited && self.exit_code == Some(0)
    }

    /// The status that a shell would report: the exit code, 128 + signal, 127 for a
    /// program that was not found, 126 for one that cannot be run, 125 for one whose end is not known,
    /// else 1.
    #[must_use]
    pub fn shell_status(&self) -> u8 {
        match (self.reason, self.exit_code, self.signal) {
            (Reason::NotFound, ..) => 127,
            (Reason::NotExecutable, ..) => 126,
            (Reason::Lost, ..) => 125,
            (_, Some(code), _) => code,
            (_, None, Some(signal)) => 128u8.saturating_add(signal),
            (_, None, None) => 1,
        }
    }

    /// The header value: one line of ASCII.
    #[must_use]
    pub fn to_header(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a header value; `None` for one that is too long or not an ending, which
    /// a host treats like a header that was not sent.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        if value.len() > MAX_RESULT_HEADER {
            return None;
        }
        serde_json::from_str(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let exited = |code| Ending { exit_code: Some(code), ..Ending::new(Reason::Exited) };
        assert_eq!(exited(3).shell_status(), 3);
        assert!(exited(0).is_success() && !exited(1).is_success());
        let killed = Ending { signal: Some(9), ..Ending::new(Reason::Killed) };
        assert_eq!(killed.shell_status(), 137);
        assert_eq!(Ending::new(Reason::NotFound).shell_status(), 127);
        assert_eq!(Ending::new(Reason::NotExecutable).shell_status(), 126);
        assert_eq!(Ending::new(Reason::Lost).shell_status(), 125);
        assert_eq!(Ending::new(Reason::Other).shell_status(), 1);
    }

    #[test]
    fn an_unknown_reason_still_reads() {
        let ending = Ending::from_header(r#"{"reason":"melted","exitCode":4,"x":1}"#).unwrap();
        assert_eq!((ending.reason, ending.shell_status()), (Reason::Other, 4));
        assert_eq!(Ending::from_header(&" ".repeat(2000)), None);
        assert_eq!(Ending::from_header("{}"), None);
    }
}
