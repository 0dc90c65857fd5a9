//! What identifies a connection.

use std::net::Ipv4Addr;

/// Identifies a connection during the life of the card. It is never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// The guest's address and port, and the service's port. They identify a connection, because the
/// service has one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) peer: Ipv4Addr,
    pub(super) peer_port: u16,
    pub(super) port: u16,
}
