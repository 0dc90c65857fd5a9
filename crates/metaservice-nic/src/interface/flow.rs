//! What identifies a connection.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::address::SERVICE_ADDRESS;

/// Identifies a connection during the life of the card. It is never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// Identifies an attempt to connect: of the guest through the card, or of the host to the guest. It
/// is never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub(super) u64);

/// The two ends of a connection: of the guest, and of the service or behind the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) peer: Ipv4Addr,
    pub(super) peer_port: u16,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

impl Flow {
    /// Whether it goes through the card, and not to the service.
    pub(super) fn is_routed(self) -> bool {
        self.address != SERVICE_ADDRESS
    }

    /// The guest's end.
    pub(super) fn source(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.peer, self.peer_port)
    }

    /// The other end.
    pub(super) fn destination(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }
}
