//! What the host calls: the service, and commands, files and connections in the guest.
//!
//! Turns calls into actions of the [`job`](crate::job), and replies into values and streams. The
//! extended actions of newer agents come first; if an agent of version 1 can do the same, its
//! action is the fallback.

mod actions;
pub(crate) mod attach;
pub(crate) mod builder;
pub(crate) mod child;
pub(crate) mod dial;
pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod lines;
pub(crate) mod list;
pub(crate) mod read;
mod request;
pub(crate) mod service;
pub(crate) mod write;
