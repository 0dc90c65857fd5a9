//! What the agent reads and asks of the guest's kernel and of its user database.

pub(crate) mod account;
pub(crate) mod descriptor;
pub(crate) mod oom;
pub(crate) mod processes;
pub(crate) mod streams;
