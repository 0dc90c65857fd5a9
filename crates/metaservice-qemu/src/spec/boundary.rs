//! What confines QEMU: a second boundary behind QEMU itself.

use std::fmt;

/// The means that this host has to confine QEMU. Its [`Display`](fmt::Display) is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Whether a process can get mounts of its own.
    pub(crate) namespaces: bool,
    /// Whether that needs no user namespace.
    pub(crate) privileged: bool,
    pub(crate) landlock: bool,
    /// Whether Landlock also blocks signals.
    pub(crate) signals: bool,
}

impl Boundary {
    /// No boundary except QEMU's own system call filter: for a QEMU with devices that this crate
    /// does not know, as in a measurement. Never for an untrusted guest.
    pub const NONE: Self =
        Self { namespaces: false, privileged: false, landlock: false, signals: false };

    /// Whether QEMU has a second boundary in each case, also with a shared directory.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.privileged || self.landlock
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.namespaces, self.privileged, self.landlock) {
            (true, true, _) => "QEMU runs in namespaces of its own, without capabilities",
            (true, false, true) => {
                "QEMU runs in namespaces of its own; with --rootfs under Landlock rules"
            }
            (true, false, false) => {
                "QEMU runs in namespaces of its own; with --rootfs it is not confined: this host \
                 has no Landlock"
            }
            (false, _, true) => {
                "QEMU runs under Landlock rules: this host allows you no user namespaces. With \
                 --rootfs the guest sees the names of hidden files"
            }
            (false, _, false) => {
                "QEMU is not confined, and --rootfs hides no files: this host allows you no user \
                 namespaces and has no Landlock"
            }
        })?;
        if self.signals {
            return Ok(());
        }
        f.write_str("; it could send signals to your processes, which Linux 6.12 prevents")
    }
}
