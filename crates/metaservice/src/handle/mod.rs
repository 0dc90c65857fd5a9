//! What the host calls: the service, and actions, files, shells and connections in the guest.

pub(crate) mod actions;
pub(crate) mod builder;
pub(crate) mod dial;
pub(crate) mod error;
pub(crate) mod lines;
pub(crate) mod read;
pub(crate) mod service;
pub(crate) mod shell;
pub(crate) mod write;
