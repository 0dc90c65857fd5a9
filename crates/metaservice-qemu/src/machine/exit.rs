//! How a machine ended.
//!
//! Owns the verdict on the evidence. The guest can write anything to its console, so the console
//! only distinguishes two causes of the guest's own.

use std::fmt;
use std::process::ExitStatus;

use super::out_of_memory::OutOfMemory;

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitCause {
    /// The guest powered itself off, by itself or after the power button.
    GuestPoweredOff,
    /// The guest's kernel panicked.
    GuestPanicked {
        /// The kernel's line about it, sanitized, if it reached the console.
        line: Option<String>,
    },
    /// The guest reset the machine, which ends the machine.
    GuestReset,
    /// The guest's writes to its disk found no room on the host, so the machine was ended.
    HostDiskFull,
    /// The caller killed it.
    Killed,
    /// A signal ended QEMU: another process or the kernel killed it, or it crashed.
    Signalled {
        /// The number of the signal.
        signal: i32,
        /// Which memory was exhausted meanwhile: the likely cause of a SIGKILL.
        out_of_memory: Option<OutOfMemory>,
        /// QEMU's messages, sanitized.
        stderr: String,
    },
    /// QEMU failed, or another process made it quit.
    Crashed {
        /// QEMU's messages, sanitized.
        stderr: String,
    },
}

impl fmt::Display for ExitCause {
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
            Self::Signalled { signal, out_of_memory, stderr } => {
                write!(f, "QEMU was ended by {}", name(*signal))?;
                match out_of_memory {
                    Some(OutOfMemory::Limit) => write!(
                        f,
                        "; the kernel killed a process because its control group has reached its \
                         memory limit: probably this one"
                    )?,
                    Some(OutOfMemory::Host) => write!(
                        f,
                        "; the kernel killed a process because this host has no memory left: \
                         probably this one"
                    )?,
                    None => {}
                }
                if stderr.is_empty() { Ok(()) } else { write!(f, ": {stderr}") }
            }
            Self::Crashed { stderr } if stderr.is_empty() => write!(f, "QEMU ended unexpectedly"),
            Self::Crashed { stderr } => write!(f, "QEMU ended unexpectedly: {stderr}"),
        }
    }
}

/// The signal that QEMU names in its last message.
fn signal_in(stderr: &str) -> Option<i32> {
    let (_, behind) = stderr.rsplit_once("terminating on signal ")?;
    behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The name of a signal that ends processes.
fn name(signal: i32) -> String {
    const NAMES: [(i32, &str); 13] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// The end of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The cause.
    pub cause: ExitCause,
    /// The exit status of QEMU's process.
    pub status: ExitStatus,
}

/// The evidence of a machine's end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The reason in QEMU's SHUTDOWN event.
    pub(crate) shutdown: Option<String>,
    /// Whether the guest used its panic device.
    pub(crate) panicked: bool,
    /// Whether a write to the disk found no room on the host.
    pub(crate) no_room: bool,
    /// Whether the caller killed the machine.
    pub(crate) killed: bool,
    /// The last lines of the console.
    pub(crate) console: Vec<String>,
    /// QEMU's messages.
    pub(crate) stderr: String,
    /// The signal that ended QEMU.
    pub(crate) signal: Option<i32>,
    /// Which memory was exhausted meanwhile.
    pub(crate) out_of_memory: Option<OutOfMemory>,
}

impl Evidence {
    pub(crate) fn verdict(self) -> ExitCause {
        let line =
            self.console.into_iter().rev().find(|line| line.contains("Kernel panic - not syncing"));
        match self.shutdown.as_deref() {
            _ if self.panicked => ExitCause::GuestPanicked { line },
            Some("guest-panic") => ExitCause::GuestPanicked { line },
            Some("guest-shutdown") => ExitCause::GuestPoweredOff,
            // A kernel that panics without a panic device resets at once.
            Some("guest-reset") if line.is_some() => ExitCause::GuestPanicked { line },
            Some("guest-reset") => ExitCause::GuestReset,
            _ if self.no_room => ExitCause::HostDiskFull,
            _ if self.killed => ExitCause::Killed,
            // QEMU sends an event before it ends because of a signal.
            Some("host-signal") if self.signal.is_none() => {
                let signal = signal_in(&self.stderr).unwrap_or(libc::SIGTERM);
                ExitCause::Signalled { signal, out_of_memory: None, stderr: self.stderr }
            }
            _ => match self.signal {
                Some(signal) => {
                    let out_of_memory = self.out_of_memory.filter(|_| signal == libc::SIGKILL);
                    ExitCause::Signalled { signal, out_of_memory, stderr: self.stderr }
                }
                None => ExitCause::Crashed { stderr: self.stderr },
            },
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
        assert_eq!(evidence("guest-shutdown").verdict(), ExitCause::GuestPoweredOff);
        assert_eq!(evidence("guest-reset").verdict(), ExitCause::GuestReset);
        assert_eq!(evidence("guest-panic").verdict(), ExitCause::GuestPanicked { line: None });
        let reset = Evidence { console: console.clone(), ..evidence("guest-reset") };
        assert_eq!(reset.verdict(), ExitCause::GuestPanicked { line: Some(panic) });
        assert_eq!(evidence("").verdict(), ExitCause::Crashed { stderr: "said".into() });
        let signalled = |signal, out_of_memory| ExitCause::Signalled {
            signal,
            out_of_memory,
            stderr: "said".into(),
        };
        assert_eq!(evidence("host-signal").verdict(), signalled(15, None));
        let hung_up = "qemu: terminating on signal 1 from pid 2 (x)".to_owned();
        let told = Evidence { stderr: hung_up, ..evidence("host-signal") };
        assert!(matches!(told.verdict(), ExitCause::Signalled { signal: 1, .. }));
        let by = |signal| Evidence {
            signal: Some(signal),
            out_of_memory: Some(OutOfMemory::Limit),
            ..evidence("")
        };
        assert_eq!(by(9).verdict(), signalled(9, Some(OutOfMemory::Limit)));
        assert_eq!(by(11).verdict(), signalled(11, None), "a fault of its own");
        let said = by(9).verdict().to_string();
        assert!(said.contains("SIGKILL") && said.contains("memory limit"), "{said}");
        assert_eq!(Evidence { killed: true, ..by(9) }.verdict(), ExitCause::Killed);
        let full = Evidence { no_room: true, killed: true, ..evidence("") };
        assert_eq!(full.verdict(), ExitCause::HostDiskFull);
        assert_eq!(
            Evidence { killed: true, ..evidence("host-qmp-quit") }.verdict(),
            ExitCause::Killed
        );
        assert_eq!(Evidence { killed: true, ..evidence("") }.verdict(), ExitCause::Killed);
    }

    #[test]
    fn a_guest_that_prints_a_panic_and_powers_off_has_not_panicked() {
        let console = vec!["Kernel panic - not syncing: forged".into()];
        assert_eq!(
            Evidence { console, ..evidence("guest-shutdown") }.verdict(),
            ExitCause::GuestPoweredOff
        );
    }

    #[test]
    fn a_guest_that_powers_off_while_it_is_being_killed_powered_off() {
        assert_eq!(
            Evidence { killed: true, ..evidence("guest-shutdown") }.verdict(),
            ExitCause::GuestPoweredOff
        );
    }
}
