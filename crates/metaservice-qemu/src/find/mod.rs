//! Finds what a machine needs on this host: QEMU, a kernel, busybox.
//!
//! Owns the places, their order, and the words about what is missing. It installs nothing.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `search` | the places, and the search |
//! | `qemu` | the version of QEMU, and its record |
//! | `kernel` | a kernel and its modules |
//! | `report` | the result |

pub(crate) mod kernel;
pub(crate) mod qemu;
pub(crate) mod report;
pub(crate) mod search;

#[cfg(test)]
mod tests;
