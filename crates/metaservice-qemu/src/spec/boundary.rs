//! What confines QEMU: a second boundary behind QEMU itself.

use std::fmt;

/// What this host offers to confine QEMU with. [`Display`](fmt::Display) says it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Whether mounts can be made for a process.
    pub(crate) namespaces: bool,
    /// Whether without a user namespace.
    pub(crate) privileged: bool,
    pub(crate) landlock: bool,
    /// Whether it keeps signals too.
    pub(crate) signals: bool,
}

impl Boundary {
    /// No boundary but QEMU's own system call filter: for a QEMU with devices that this crate does
    /// not know, as in a measurement. Never for a guest that is not trusted.
    pub const NONE: Self =
        Self { namespaces: false, privileged: false, landlock: false, signals: false };

    /// Whether QEMU gets a second boundary in any case.
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
