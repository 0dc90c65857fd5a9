//! What a card has as a router.
//!
//! It owns what the owner of the [`Gateway`](crate::Gateway) takes: datagrams, echo requests and
//! what was rejected, in queues with [limits](crate::Limits), beside the attempts of the table of
//! connections.

use super::{flow::ConnectionId, queue::Queue, replies::Replies};
use crate::config::Limits;
use crate::network::{Datagram, EchoRequest, Network, Rejected};

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptProgress {
    /// Its SYN or its handshake waits.
    Pending,
    /// The connection is there. The attempt ends with this answer.
    Established(ConnectionId),
    /// The guest has refused the connection. The attempt ends with this answer.
    Refused,
    /// The guest has given up or does not answer, or other attempts have displaced this one.
    Gone,
}

pub(super) struct Router {
    pub(super) network: Network,
    /// Whether somebody takes what goes through.
    pub(super) open: bool,
    pub(super) datagrams: Queue<Datagram>,
    pub(super) echoes: Queue<EchoRequest>,
    pub(super) rejected: Queue<Rejected>,
    /// How many had no room since the last one was taken.
    pub(super) missed: u64,
    pub(super) replies: Replies,
}

impl Router {
    pub(super) fn new(network: Network, limits: &Limits) -> Self {
        Self {
            network,
            open: true,
            datagrams: Queue::new(limits.datagrams, limits.datagram_bytes),
            echoes: Queue::new(limits.echoes, limits.datagram_bytes),
            rejected: Queue::new(limits.rejected, 0),
            missed: 0,
            replies: Replies::new(limits),
        }
    }
}
