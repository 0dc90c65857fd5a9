//! The card as smoltcp's device, which receives and sends IPv4 packets without Ethernet headers.
//!
//! smoltcp runs without its own link layer (`Medium::Ip`). Its neighbour cache forgets a guest that
//! has been silent for a minute, and then delays packets for a second. The Ethernet header is added
//! here.

use std::time::Duration;

use smoltcp::{
    phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
    wire::{EthernetProtocol, Ipv4Packet},
};

use crate::{
    address::Mtu,
    ethernet::{self, Neighbours},
    frame::Outgoing,
};

/// Which checksums are computed and which are verified.
///
/// All are computed, because the guest's kernel verifies them. QEMU offers no checksum offload on a
/// netdev without virtio-net headers, so packets from the guest have their checksums too.
///
/// All received checksums except TCP's are verified. TCP's would need a pass over each payload
/// byte, to find an error that cannot happen by accident: the link is a socket between two
/// processes of one host. A hostile guest computes a correct checksum.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.tcp = Checksum::Tx;
    checksums
}

/// The parts of the card that a packet for the guest needs.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) mtu: Mtu,
    pub(super) checksums: &'a ChecksumCapabilities,
    pub(super) neighbours: &'a Neighbours,
}

/// A device with at most one packet to receive, and room to send.
pub(super) struct PacketDevice<'a> {
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) outgoing: &'a mut Outgoing,
    pub(super) neighbours: &'a Neighbours,
    pub(super) mtu: Mtu,
}

impl Device for PacketDevice<'_> {
    type RxToken<'token>
        = ReceivedPacket<'token>
    where
        Self: 'token;
    type TxToken<'token>
        = Transmission<'token>
    where
        Self: 'token;

    fn receive(&mut self, _: Instant) -> Option<(ReceivedPacket<'_>, Transmission<'_>)> {
        let packet = self.incoming.take()?;
        let transmission = Transmission { outgoing: self.outgoing, neighbours: self.neighbours };
        Some((ReceivedPacket(packet), transmission))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmission<'_>> {
        if self.outgoing.is_full() {
            return None;
        }
        Some(Transmission { outgoing: self.outgoing, neighbours: self.neighbours })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// IPv4 packets with at most this MTU.
pub(super) fn capabilities(mtu: Mtu) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = usize::from(mtu.get());
    capabilities.checksum = checksums();
    capabilities
}

pub(super) struct ReceivedPacket<'a>(pub(super) &'a [u8]);

impl RxToken for ReceivedPacket<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(self.0)
    }
}

pub(super) struct Transmission<'a> {
    outgoing: &'a mut Outgoing,
    neighbours: &'a Neighbours,
}

impl TxToken for Transmission<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let find =
            |packet: &[u8]| self.neighbours.find(Ipv4Packet::new_unchecked(packet).dst_addr());
        ethernet::push(self.outgoing, find, EthernetProtocol::Ipv4, length, fill)
    }
}

/// A time in smoltcp's type.
pub(super) fn instant(time: Duration) -> Instant {
    Instant::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}
