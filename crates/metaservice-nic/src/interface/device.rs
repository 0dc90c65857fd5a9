//! The card as smoltcp sees it: a device that takes and gives bare IPv4 packets.
//!
//! smoltcp runs without its own link layer (`Medium::Ip`): its neighbour cache forgets a
//! guest that has been silent for a minute, and holds packets back for a second whenever it
//! has to ask again. The Ethernet header is put around a packet here instead.

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
/// All are computed: the guest's kernel verifies them. QEMU offers it no checksum offload on
/// a netdev without virtio-net headers, as this one is, and for the same reason what comes
/// from it is complete.
///
/// Of what is received, all but TCP's are verified. TCP's would be a pass over every payload
/// byte of the fast direction, to find what cannot happen by accident: the wire is a socket
/// between two processes of one host, with no hardware to flip a bit, and a guest that means
/// harm computes the checksum over it.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::default();
    checksums.tcp = Checksum::Tx;
    checksums
}

/// One packet in at most, and any number out.
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

/// Bare IPv4 packets of at most this MTU.
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

/// The time as smoltcp has it.
pub(super) fn instant(time: Duration) -> Instant {
    Instant::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}
