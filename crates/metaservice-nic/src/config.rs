//! The configuration of a card.

use crate::address::{GuestAddress, Mtu, SERVICE_PORT};
use crate::network::Network;
use crate::pcap::Pcap;
use crate::stale::StaleConnection;

/// The limits on what one guest can use of the host.
///
/// Connections to the service and those through the [`Gateway`](crate::Gateway) have limits of
/// their own: a guest that has used up the latter still reaches the service.
///
/// Buffers belong to connections with a complete handshake. With few connections, each has its full
/// buffers. With many, they are smaller, but at least 64 KiB to receive and 16 KiB to send. A
/// connection for which there is no memory waits: the guest repeats its segment. At most 8 MiB of
/// buffers of ended connections are kept for the next ones, in addition to these limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections with a complete handshake, in any state, also dropped ones that still deliver
    /// data. A SYN above the limit is answered with a reset.
    pub connections: usize,
    /// Incomplete handshakes. A SYN above the limit displaces the oldest. Each takes some hundred
    /// bytes, and ends after half a minute.
    pub half_open: usize,
    /// Connections through the [`Gateway`](crate::Gateway), in both directions, as `connections`
    /// are those to the service.
    pub routed_connections: usize,
    /// Attempts of the guest to connect through the gateway, whose handshake is not complete. A SYN
    /// above the limit displaces the oldest, which the guest repeats. Each ends half a minute after
    /// its SYN, or after the owner's answer.
    pub attempts: usize,
    /// Connections to the guest that wait for its answer. More are an error of
    /// [`Gateway::connect`](crate::Gateway::connect).
    pub opens: usize,
    /// Bytes of the buffers of all connections through the gateway, as `buffers` are those of
    /// connections to the service.
    pub routed_buffers: usize,
    /// Datagrams that wait in each direction. More are dropped and counted.
    pub datagrams: usize,
    /// Echo requests that wait for the owner of the gateway. More are dropped and counted.
    pub echoes: usize,
    /// What was rejected and waits for the owner of the gateway. More is counted.
    pub rejected: usize,
    /// Bytes of the datagrams that wait in each direction, and of the echo requests.
    pub datagram_bytes: usize,
    /// Bytes of the buffers of all connections. With less than 80 KiB for each of `connections`, it
    /// is the stricter limit on their number.
    pub buffers: usize,
    /// The largest receive buffer, and thus the largest window, of a connection in bytes.
    pub receive_buffer: usize,
    /// The largest send buffer of a connection in bytes.
    pub send_buffer: usize,
    /// Frames that the guest may send in a second, on average over a tenth of a second. If it sends
    /// more, the card stops reading for a moment. No frame is lost.
    pub frames: u32,
}

impl Default for Limits {
    /// 1024 connections and 1024 handshakes. 48 MiB for all buffers, and for each connection at
    /// most 1 MiB to receive and 2 MiB to send. 1,000,000 frames a second.
    ///
    /// Through the gateway, 2048 connections with 128 MiB for their buffers, 1024 attempts, and 128
    /// connections to the guest without its answer. 1024 datagrams with 1 MiB, 64 echo requests
    /// with 1 MiB, and 64 packets that were rejected.
    fn default() -> Self {
        Self {
            connections: 1024,
            half_open: 1024,
            routed_connections: 2048,
            attempts: 1024,
            opens: 128,
            routed_buffers: 128 << 20,
            datagrams: 1024,
            echoes: 64,
            rejected: 64,
            datagram_bytes: 1 << 20,
            buffers: 48 << 20,
            receive_buffer: 1 << 20,
            send_buffer: 2 << 20,
            frames: 1_000_000,
        }
    }
}

/// The configuration of a card.
///
/// ```
/// use metaservice_nic::{Config, Mtu};
///
/// let config = Config::default().mtu(Mtu::ETHERNET).ports(vec![80, 9]);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    pub(crate) mtu: Mtu,
    pub(crate) guest_address: GuestAddress,
    pub(crate) network: Option<Network>,
    pub(crate) ports: Vec<u16>,
    pub(crate) limits: Limits,
    pub(crate) pcap: Option<Pcap>,
    pub(crate) stale_connections: Vec<StaleConnection>,
}

impl Default for Config {
    /// The guest has the address 169.254.1.2, the service listens on port 80, the MTU is 65520.
    fn default() -> Self {
        Self {
            mtu: Mtu::default(),
            guest_address: GuestAddress::default(),
            network: None,
            ports: vec![SERVICE_PORT],
            limits: Limits::default(),
            pcap: None,
            stale_connections: Vec::new(),
        }
    }
}

impl Config {
    /// Sets the MTU of the link. DHCP sends it to the guest (option 26).
    #[must_use]
    pub const fn mtu(mut self, mtu: Mtu) -> Self {
        self.mtu = mtu;
        self
    }

    /// Sets the address that DHCP gives the guest.
    #[must_use]
    pub const fn guest_address(mut self, address: GuestAddress) -> Self {
        self.guest_address = address;
        self
    }

    /// Makes the card the router of its guest: see [`attach_gateway`](crate::attach_gateway). DHCP
    /// gives the guest its address in this network, in place of
    /// [`guest_address`](Self::guest_address), with the card as router and resolver. Without, DHCP
    /// offers neither a default route nor a resolver.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Sets the TCP ports on which connections are accepted. Connections to others are refused.
    #[must_use]
    pub fn ports(mut self, ports: Vec<u16>) -> Self {
        self.ports = ports;
        self
    }

    /// Sets the limits on what one guest can use of the host.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Writes a copy of each frame.
    #[must_use]
    pub fn pcap(mut self, pcap: Pcap) -> Self {
        self.pcap = Some(pcap);
        self
    }

    /// Sets connections that a restored guest still has with the card that it had before. They are
    /// reset before anything else, so that the guest notices at once.
    #[must_use]
    pub fn stale_connections(mut self, connections: Vec<StaleConnection>) -> Self {
        self.stale_connections = connections;
        self
    }
}
