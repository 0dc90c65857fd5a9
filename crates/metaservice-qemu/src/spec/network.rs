//! The network card of a machine.

use std::os::fd::OwnedFd;

use super::hardware::MacAddress;

/// The largest MTU that a virtio card and a 16-bit IP length allow.
const JUMBO_MTU: u16 = 65520;

/// The network card. Its other end is the guest's whole network: QEMU has none.
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
