//! Queues of bytes between a source and a connection.
//!
//! They are public because both sides need them outside of this crate: the host for files that it
//! receives and writes, the guest for its log. This crate is the only one that both depend on.

mod chunks;
mod resend;

pub use chunks::ChunkQueue;
pub use resend::ResendBuffer;
