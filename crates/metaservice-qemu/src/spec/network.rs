//! The network cards of a machine.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use super::hardware::MacAddress;

/// The largest MTU that a virtio card and a 16-bit IP length allow.
const JUMBO_MTU: u16 = 65520;

/// Whether the guest reaches more than the card's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// No.
    #[default]
    None,
    /// By a second card with an address of its own, what this host reaches: QEMU opens the
    /// connections, as this user.
    User,
}

/// A port of this host that leads to one of the guest's, by the [user network](Network::User).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Of which protocol.
    pub transport: Transport,
    /// The address of this host, of those that it has; unspecified is all of them.
    pub address: Ipv4Addr,
    /// The port of this host, not 0.
    pub port: u16,
    /// The port of the guest, not 0.
    pub guest_port: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The network card whose other end the caller holds.
#[derive(Debug)]
pub struct Card {
    pub(crate) stream: OwnedFd,
    pub(crate) address: MacAddress,
    pub(crate) mtu: u16,
}

impl Card {
    /// A card on one end of a connected stream socket. On the other end each Ethernet frame
    /// follows its length in four bytes, big-endian.
    #[must_use]
    pub fn new(stream: OwnedFd, address: MacAddress) -> Self {
        Self { stream, address, mtu: JUMBO_MTU }
    }

    /// The MTU that the guest is told, at least 68; 65520 if nobody says otherwise.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu.clamp(68, JUMBO_MTU);
        self
    }
}
