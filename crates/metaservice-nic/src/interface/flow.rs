//! What identifies a connection.

use std::net::Ipv4Addr;

/// Names a connection for as long as the card lives; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// The guest's address and port, and the port of the service: what tells connections apart,
/// as the service has one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) peer: Ipv4Addr,
    pub(super) peer_port: u16,
    pub(super) port: u16,
}
