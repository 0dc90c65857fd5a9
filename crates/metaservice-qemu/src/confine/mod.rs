//! What QEMU gets of its host: a second boundary behind QEMU itself.
//!
//! Owns the choice between what this host offers, and who does which part of it.
//!
//! | who starts it | machine | folder of the host that it exports |
//! | --- | --- | --- |
//! | root | mounts of its own with what it needs, a user namespace without capabilities | a mount of that folder alone, without others below it |
//! | a user who may make user namespaces | the same | a folder among mounts of its own; QEMU by Landlock |
//! | any other | Landlock | the folder itself, other file systems refused; Landlock |
//! | no Landlock either | nothing but QEMU's own system call filter | other file systems refused |
//!
//! An ordinary user's namespace knows one user: QEMU within would show the guest all files of
//! others, root's too, as those of nobody. So a QEMU with a folder stays outside.

pub(crate) mod armed;
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
