//! A command's stream with the guest.
//!
//! Three parts share one [`ShellSession`](metaservice_protocol::shell::ShellSession) under a short
//! lock, in [`shared`]: the standard streams in [`stream`], the [`Child`](command::Child) itself,
//! and the [`pump`] that moves messages between the session and the websocket. No stream is copied
//! into a channel: the session's windows limit what the guest may send, and unread bytes stay
//! there.

pub(crate) mod command;
pub(crate) mod first_line;
mod pump;
mod shared;
pub(crate) mod socket;
pub(crate) mod stream;
