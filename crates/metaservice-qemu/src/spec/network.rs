//! The network cards of a machine.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use super::hardware::MacAddress;

/// The largest MTU that a virtio card and a 16-bit IP length allow.
const JUMBO_MTU: u16 = 65520;

/// What the guest can reach in addition to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// What this host can reach, over a second card with an address of its own. QEMU opens the
    /// connections, as this user.
    User,
}

/// A port of this host that leads to a port of the guest, over the [user network](Network::User).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// The protocol.
    pub transport: Transport,
    /// An address of this host. The unspecified address stands for all of them.
    pub address: Ipv4Addr,
    /// The port of this host, not 0.
    pub port: u16,
    /// The port of the guest, not 0.
    pub guest_port: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The network card of the service. The caller has its other end.
#[derive(Debug)]
pub struct Card {
    pub(crate) stream: OwnedFd,
    pub(crate) address: MacAddress,
    pub(crate) mtu: u16,
}

impl Card {
    /// A card on one end of a connected stream socket. On the other end, each Ethernet frame
    /// follows its length, which has four bytes in big-endian order.
    #[must_use]
    pub fn new(stream: OwnedFd, address: MacAddress) -> Self {
        Self { stream, address, mtu: JUMBO_MTU }
    }

    /// Sets the MTU of the guest's card, at least 68. The default is 65520.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu.clamp(68, JUMBO_MTU);
        self
    }
}
