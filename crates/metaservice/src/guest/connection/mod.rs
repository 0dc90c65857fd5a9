//! One connection of the guest, over any byte stream.
//!
//! [`polls`] serves a connection as long as it carries polls, with no buffer. [`serve`] hands it
//! to hyper from the first other request on. [`watched`] is the stream below both.

mod head;
mod polls;
pub(crate) mod serve;
mod watched;
