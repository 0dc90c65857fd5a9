//! Access to the guest's kernel and to its user database.
//!
//! Owns the formats of `/proc` and `/etc`, pipes, terminals, watched descriptors, the host name,
//! the files of names and the root. It knows nothing of jobs, shells or the service.

pub(crate) mod account;
pub(crate) mod blocks;
pub(crate) mod descriptor;
pub(crate) mod host_name;
pub(crate) mod names;
pub(crate) mod oom;
pub(crate) mod processes;
pub(crate) mod root;
pub(crate) mod streams;
