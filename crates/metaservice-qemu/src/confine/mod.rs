//! The confinement of QEMU: a second boundary behind QEMU itself.
//!
//! Owns the choice between the means of the host.
//!
//! | user | machine | shared directories |
//! | --- | --- | --- |
//! | root | a mount namespace with only what it needs, a user namespace without capabilities | a mount of each directory, without others below it |
//! | a user who can create user namespaces | the same | the directories in a mount namespace; Landlock for QEMU |
//! | any other | Landlock | the directories themselves, without other file systems; Landlock |
//! | the same, without Landlock | QEMU's own system call filter alone | without other file systems |
//!
//! The user namespace of an ordinary user has one user. QEMU within it would show files of all
//! other users, also of root, as those of an unknown user. So a QEMU with a shared directory stays
//! outside.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `probe`, `needs` | what the host has, and what a machine needs |
//! | `confinement`, `armed`, `hold` | the preparation, and the start of a process |
//! | `steps`, `mounts`, `landlock` | mounts and rules |
//! | `calls` | what QEMU does not do for a guest that writes |
//! | `enter`, `handshake` | the child's part and the parent's |

pub(crate) mod armed;
mod calls;
pub(crate) mod confinement;
pub(crate) mod enter;
pub(crate) mod error;
mod handshake;
mod hold;
mod landlock;
mod mounts;
pub(crate) mod needs;
mod probe;
mod steps;

#[cfg(test)]
mod tests;
