//! How a machine ended.
//!
//! Owns the verdict from what was observed. What the guest merely says (its console) is
//! believed only where it tells two kinds of the guest's own end apart.

use std::fmt;
use std::process::ExitStatus;

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The guest powered itself off, by its own will or by the power button.
    GuestPoweredOff,
    /// The guest's kernel panicked.
    GuestPanicked {
        /// The kernel's line about it, if it got out; fit to be shown.
        line: Option<String>,
    },
    /// The guest reset the machine, which ends it.
    GuestReset,
    /// What the guest wrote to its disk found no room on this host, so it was ended.
    HostDiskFull,
    /// We ended it.
    Killed,
    /// QEMU failed, or somebody else ended it.
    Crashed {
        /// What QEMU said; fit to be shown.
        stderr: String,
    },
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestPoweredOff => write!(f, "the guest powered off"),
            Self::GuestPanicked { line: Some(line) } => {
                write!(f, "the guest's kernel panicked: {line}")
            }
            Self::GuestPanicked { line: None } => write!(f, "the guest's kernel panicked"),
            Self::GuestReset => write!(f, "the guest reset the machine"),
            Self::HostDiskFull => {
                write!(f, "this host has no room left for what the guest writes to its disk")
            }
            Self::Killed => write!(f, "the machine was killed"),
            Self::Crashed { stderr } if stderr.is_empty() => write!(f, "QEMU ended unexpectedly"),
            Self::Crashed { stderr } => write!(f, "QEMU ended unexpectedly: {stderr}"),
        }
    }
}

/// The end of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// What happened.
    pub how: How,
    /// How QEMU's process ended.
    pub status: ExitStatus,
}

/// What was observed of a machine's end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The reason in QEMU's SHUTDOWN event.
    pub(crate) shutdown: Option<String>,
    /// Whether the guest's panic device was rung.
    pub(crate) panicked: bool,
    /// Whether a write to its disk found no room on this host.
    pub(crate) no_room: bool,
    /// Whether we have ended the machine.
    pub(crate) killed: bool,
    /// The last lines of the console.
    pub(crate) console: Vec<String>,
    /// What QEMU said.
    pub(crate) stderr: String,
}

impl Evidence {
    pub(crate) fn verdict(self) -> How {
        let line =
            self.console.into_iter().rev().find(|line| line.contains("Kernel panic - not syncing"));
        match self.shutdown.as_deref() {
            _ if self.panicked => How::GuestPanicked { line },
            Some("guest-panic") => How::GuestPanicked { line },
            Some("guest-shutdown") => How::GuestPoweredOff,
            // A kernel that panics without a panic device resets at once.
            Some("guest-reset") if line.is_some() => How::GuestPanicked { line },
            Some("guest-reset") => How::GuestReset,
            _ if self.no_room => How::HostDiskFull,
            _ if self.killed => How::Killed,
            _ => How::Crashed { stderr: self.stderr },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(shutdown: &str) -> Evidence {
        let shutdown = Some(shutdown.to_owned()).filter(|reason| !reason.is_empty());
        Evidence { shutdown, stderr: "said".into(), ..Evidence::default() }
    }

    #[test]
    fn each_end() {
        let panic = "[    1.2] Kernel panic - not syncing: Attempted to kill init!".to_owned();
        let console = vec!["before".to_owned(), panic.clone(), "Rebooting".into()];
        assert_eq!(evidence("guest-shutdown").verdict(), How::GuestPoweredOff);
        assert_eq!(evidence("guest-reset").verdict(), How::GuestReset);
        assert_eq!(evidence("guest-panic").verdict(), How::GuestPanicked { line: None });
        let reset = Evidence { console: console.clone(), ..evidence("guest-reset") };
        assert_eq!(reset.verdict(), How::GuestPanicked { line: Some(panic) });
        assert_eq!(evidence("").verdict(), How::Crashed { stderr: "said".into() });
        assert_eq!(evidence("host-signal").verdict(), How::Crashed { stderr: "said".into() });
        let full = Evidence { no_room: true, killed: true, ..evidence("") };
        assert_eq!(full.verdict(), How::HostDiskFull);
        assert_eq!(Evidence { killed: true, ..evidence("host-qmp-quit") }.verdict(), How::Killed);
        assert_eq!(Evidence { killed: true, ..evidence("") }.verdict(), How::Killed);
    }

    #[test]
    fn a_guest_that_prints_a_panic_and_powers_off_has_not_panicked() {
        let console = vec!["Kernel panic - not syncing: forged".into()];
        assert_eq!(
            Evidence { console, ..evidence("guest-shutdown") }.verdict(),
            How::GuestPoweredOff
        );
    }

    #[test]
    fn a_guest_that_powers_off_while_it_is_being_killed_powered_off() {
        assert_eq!(
            Evidence { killed: true, ..evidence("guest-shutdown") }.verdict(),
            How::GuestPoweredOff
        );
    }
}
