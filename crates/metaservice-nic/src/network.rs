//! The network of a guest, and the packets that go through its card, as plain values.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::statistics::DropReason;

/// The network of a guest whose card is its router.
///
/// ```
/// use metaservice_nic::Network;
///
/// let mut network = Network::default();
/// network.hardware = Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// The address that DHCP gives the guest. It is the only one that may send through the card.
    pub guest: Ipv4Addr,
    /// The address of the router and of the resolver: the card.
    pub router: Ipv4Addr,
    /// The length of the network's prefix, at most 32.
    pub prefix: u8,
    /// The hardware address of the guest's card, if it is known. Frames from others are dropped and
    /// counted, also those of virtual machines that the guest bridges to its card.
    pub hardware: Option<[u8; 6]>,
}

impl Default for Network {
    /// 10.0.2.15/24 behind the router 10.0.2.2, with any hardware address.
    fn default() -> Self {
        Self {
            guest: Ipv4Addr::new(10, 0, 2, 15),
            router: Ipv4Addr::new(10, 0, 2, 2),
            prefix: 24,
            hardware: None,
        }
    }
}

/// Why a destination cannot be reached, as ICMP says it (RFC 792, RFC 1812).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreachable {
    /// There is no route to the network.
    Network,
    /// The host does not answer.
    Host,
    /// Nothing listens on the UDP port.
    Port,
    /// A policy forbids it.
    Prohibited,
    /// The packet is too large for the path to its destination, and may not be fragmented (RFC
    /// 1191).
    TooLarge {
        /// The largest IPv4 packet on the path in bytes.
        mtu: u16,
    },
}

/// The beginning of something that the guest wants, in a packet that the card does not carry: the
/// SYN of a connection, a datagram or an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The protocol of the packet.
    pub protocol: Protocol,
    /// The destination. The port of an echo request is 0.
    pub destination: SocketAddrV4,
    /// Why it was dropped: its source, its destination, IPv4 options, because it is a fragment or a
    /// SYN with data, or because there are too many connections ([`DropReason::NotTaken`]).
    pub reason: DropReason,
    /// How many others there were that the owner did not take in time.
    pub missed: u64,
}

/// The protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// A UDP datagram between the guest and an address behind the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sends it.
    pub source: SocketAddrV4,
    /// Who gets it.
    pub destination: SocketAddrV4,
    /// Its content, as much as fits into the MTU of the link.
    pub payload: Vec<u8>,
}

/// An ICMP echo request of the guest to an address behind the card (RFC 792).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoRequest {
    /// The guest's address.
    pub source: Ipv4Addr,
    /// Whom the guest asks.
    pub destination: Ipv4Addr,
    /// By which the guest finds the process that asks.
    pub identifier: u16,
    /// Its number among those of the process.
    pub sequence: u16,
    /// Its content, which the answer repeats.
    pub payload: Vec<u8>,
}
