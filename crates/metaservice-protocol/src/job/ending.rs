//! Extension: how exactly the job's command ended.
//!
//! Version 1 knows success and failure only. The agent adds the detail to its `success` or
//! `failed` request, in [`RESULT_HEADER`](crate::header::RESULT_HEADER). A host of version 1
//! ignores the header.

use serde::{Deserialize, Deserializer, Serialize};

use crate::failure::Failure;
use crate::json;
use crate::limits::MAX_RESULT_HEADER;

/// Why the command no longer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum Reason {
    /// It returned an exit code.
    Exited,
    /// A signal killed it, and the host had not asked for its end.
    Signaled,
    /// The host asked for its end, by kill-process.
    Killed,
    /// The host asked for its end, because its timeout had expired.
    TimedOut,
    /// It could not be started: the program does not exist.
    NotFound,
    /// It could not be started: the file cannot be executed, or not in this directory, or not as
    /// this user, or a volume cannot be mounted.
    NotExecutable,
    /// It was not started, because the agent cannot do what the job asks for. Only a host says so.
    Unsupported,
    /// The agent lost track of it, for example because its supervisor crashed.
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
    /// The exit code (0 to 255), if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The number of the signal that killed it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// How long it ran, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Processor time in user mode, in milliseconds. It includes descendants that were waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_ms: Option<u64>,
    /// Processor time in the kernel, in milliseconds. It includes descendants that were waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_ms: Option<u64>,
    /// The maximum resident memory of one of these processes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// How many processes the guest's kernel killed for lack of memory while the command ran. It
    /// counts the command's control group if the kernel can, else the whole machine. `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u32>,
    /// Why the command was not started, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "sanitized")]
    pub failure: Option<Failure>,
}

/// A failure that a guest wrote.
fn sanitized<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Failure>, D::Error> {
    Ok(Option::<Failure>::deserialize(deserializer)?.map(Failure::sanitized))
}

impl Ending {
    /// An ending with a reason and no details.
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
            failure: None,
        }
    }

    /// Whether the protocol calls this a success: exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.reason == Reason::Exited && self.exit_code == Some(0)
    }

    /// The exit status that a shell would report: the exit code, 128 + signal, 127 for a program
    /// that was not found, 126 for one that cannot be executed, 125 for one that was lost or that
    /// the agent does not support, else 1.
    #[must_use]
    pub fn shell_status(&self) -> u8 {
        match (self.reason, self.exit_code, self.signal) {
            (Reason::NotFound, ..) => 127,
            (Reason::NotExecutable, ..) => 126,
            (Reason::Lost | Reason::Unsupported, ..) => 125,
            (_, Some(code), _) => code,
            (_, None, Some(signal)) => 128u8.saturating_add(signal),
            (_, None, None) => 1,
        }
    }

    /// The header value: one line of ASCII, of at most [`MAX_RESULT_HEADER`] bytes. The message of
    /// a failure is shortened until it fits.
    #[must_use]
    pub fn to_header(&self) -> String {
        let mut ending = self.clone();
        loop {
            let header = json::to_header(&ending);
            match ending.failure.take() {
                Some(failure) if header.len() > MAX_RESULT_HEADER => {
                    let half = failure.message.chars().count() / 2;
                    // Without a message, everything else fits.
                    ending.failure = (half > 0).then(|| failure.shortened(half));
                }
                _ => return header,
            }
        }
    }

    /// Reads a header value; `None` if it is longer than [`MAX_RESULT_HEADER`] or invalid. Then the
    /// host continues as if there were no header.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        json::from_header(value, MAX_RESULT_HEADER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::FailureCode;

    proptest! {
        #[test]
        fn a_failure_of_any_length_fits_into_the_header(message in "\\PC{0,600}", wall_ms: u64) {
            let failure = Failure::new(FailureCode::PermissionDenied, message);
            let ending = Ending {
                wall_ms: Some(wall_ms),
                cpu_user_ms: Some(wall_ms),
                cpu_system_ms: Some(wall_ms),
                peak_memory: Some(wall_ms),
                oom_kills: Some(u32::MAX),
                failure: Some(failure.clone()),
                ..Ending::new(Reason::NotExecutable)
            };
            let read = Ending::from_header(&ending.to_header()).expect("a header that fits");
            let shown = read.failure.expect("a failure");
            prop_assert_eq!(shown.code, failure.code);
            prop_assert!(failure.message.starts_with(&shown.message));
            prop_assert!(shown.message.len() >= failure.message.len().min(50));
        }
    }

    #[test]
    fn a_failure_of_a_guest_cannot_control_a_terminal() {
        let header = r#"{"reason":"not-executable","failure":{"code":"x","message":"\u001b[2J!"}}"#;
        let failure = Ending::from_header(header).unwrap().failure.unwrap();
        assert_eq!((failure.code, failure.message.as_str()), (FailureCode::Other, "[2J!"));
    }

    #[test]
    fn statuses_are_those_of_a_shell() {
        let exited = |code| Ending { exit_code: Some(code), ..Ending::new(Reason::Exited) };
        assert_eq!(exited(3).shell_status(), 3);
        let killed = Ending { signal: Some(9), ..Ending::new(Reason::Killed) };
        assert_eq!(killed.shell_status(), 137);
        assert_eq!(Ending::new(Reason::NotFound).shell_status(), 127);
        assert_eq!(Ending::new(Reason::NotExecutable).shell_status(), 126);
        assert_eq!(Ending::new(Reason::Lost).shell_status(), 125);
        assert_eq!(Ending::new(Reason::Unsupported).shell_status(), 125);
        assert_eq!(Ending::new(Reason::Other).shell_status(), 1);
    }

    #[test]
    fn only_exit_code_0_is_success() {
        let exited = |code| Ending { exit_code: Some(code), ..Ending::new(Reason::Exited) };
        assert!(exited(0).is_success() && !exited(1).is_success());
        assert!(!Ending::new(Reason::Exited).is_success());
    }

    #[test]
    fn a_reason_of_a_later_version_is_other() {
        let ending = Ending::from_header(r#"{"reason":"melted","exitCode":4,"x":1}"#).unwrap();
        assert_eq!((ending.reason, ending.shell_status()), (Reason::Other, 4));
    }

    #[test]
    fn an_invalid_header_is_none() {
        assert_eq!(Ending::from_header(&" ".repeat(2000)), None);
        assert_eq!(Ending::from_header("{}"), None);
    }
}
