//! Ethernet headers, ARP for one address, and the hardware address of each IPv4 address.
//!
//! Owns the link layer. This link has one guest at the other end: each frame goes to it, and each
//! packet of the card is an answer. So the card sends no ARP requests. It stores the hardware
//! address from which each address was last used, and no entry expires while a guest is frozen.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
};

use crate::{
    address::SERVICE_HARDWARE_ADDRESS,
    addresses::Addresses,
    frame::{ETHERNET_HEADER, Outgoing},
    statistics::DropReason,
};

/// The hardware address of the card.
pub(crate) const OWN: EthernetAddress = EthernetAddress(SERVICE_HARDWARE_ADDRESS);

/// A frame for the card.
pub(crate) enum Received<'frame> {
    /// An ARP packet.
    Arp(&'frame [u8]),
    /// An IPv4 packet, possibly with padding after it.
    Ipv4 {
        /// The hardware address of the sender.
        source: EthernetAddress,
        /// The packet.
        packet: &'frame [u8],
    },
}

/// Parses the Ethernet header of a frame on a link with this MTU.
pub(crate) fn parse(
    frame: &[u8],
    mtu: usize,
    addresses: Addresses,
) -> Result<Received<'_>, DropReason> {
    let header = EthernetFrame::new_checked(frame).map_err(|_| DropReason::Truncated)?;
    if frame.len() > ETHERNET_HEADER + mtu {
        return Err(DropReason::Oversized);
    }
    if header.ethertype() == EthernetProtocol::Ipv6 {
        return Err(DropReason::Ipv6);
    }
    if header.dst_addr() != OWN && !header.dst_addr().is_broadcast() {
        return Err(DropReason::ForeignDestination);
    }
    let source = header.src_addr();
    if !source.is_unicast() || source == OWN || !addresses.may_have(source) {
        return Err(DropReason::InvalidSource);
    }
    match header.ethertype() {
        EthernetProtocol::Arp => Ok(Received::Arp(&frame[ETHERNET_HEADER..])),
        EthernetProtocol::Ipv4 => Ok(Received::Ipv4 { source, packet: &frame[ETHERNET_HEADER..] }),
        _ => Err(DropReason::OtherProtocol),
    }
}

/// Appends a frame with `length` bytes of payload, which `fill` writes.
pub(crate) fn push<R>(
    outgoing: &mut Outgoing,
    destination: impl FnOnce(&[u8]) -> EthernetAddress,
    protocol: EthernetProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> R,
) -> R {
    outgoing.push(ETHERNET_HEADER + length, |frame| {
        let result = fill(&mut frame[ETHERNET_HEADER..]);
        let destination = destination(&frame[ETHERNET_HEADER..]);
        let mut header = EthernetFrame::new_unchecked(frame);
        header.set_dst_addr(destination);
        header.set_src_addr(OWN);
        header.set_ethertype(protocol);
        result
    })
}

/// Answers an ARP packet (RFC 826) that requests an address for which the card answers.
///
/// A probe (RFC 5227: an empty sender address) is answered too, which defends the service's
/// address. Other packets change nothing: claims to an address of the card, and those of senders
/// that are not the guest.
pub(crate) fn answer_arp(
    packet: &[u8],
    addresses: Addresses,
    neighbours: &mut Neighbours,
    outgoing: &mut Outgoing,
) -> Result<(), DropReason> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| DropReason::MalformedArp)?;
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return Err(DropReason::MalformedArp);
    };
    if !addresses.answers_for(target_protocol_addr) || operation != ArpOperation::Request {
        return Err(DropReason::ForeignDestination);
    }
    if !source_hardware_addr.is_unicast()
        || source_hardware_addr == OWN
        || !addresses.may_have(source_hardware_addr)
        || !(source_protocol_addr.is_unspecified() || addresses.is_guests(source_protocol_addr))
    {
        return Err(DropReason::InvalidSource);
    }
    neighbours.learn(source_protocol_addr, source_hardware_addr);
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: OWN,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    push(
        outgoing,
        |_| source_hardware_addr,
        EthernetProtocol::Arp,
        reply.buffer_len(),
        |payload| reply.emit(&mut ArpPacket::new_unchecked(payload)),
    );
    Ok(())
}

/// The hardware address from which each IPv4 address was last used.
///
/// A guest has one of each, unless it has a bridge to containers.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Vec<(Ipv4Addr, EthernetAddress)>);

impl Neighbours {
    /// The number of entries. A new one displaces the oldest.
    const LIMIT: usize = 32;

    pub(crate) fn learn(&mut self, address: Ipv4Addr, hardware: EthernetAddress) {
        if address.is_unspecified() {
            return;
        }
        if let Some(known) = self.0.iter_mut().find(|(known, _)| *known == address) {
            known.1 = hardware;
            return;
        }
        if self.0.len() == Self::LIMIT {
            self.0.remove(0);
        }
        self.0.push((address, hardware));
    }

    /// The hardware address of `address`. For an unknown one, the broadcast address.
    pub(crate) fn find(&self, address: Ipv4Addr) -> EthernetAddress {
        let known = self.0.iter().find(|(known, _)| *known == address);
        known.map_or(EthernetAddress::BROADCAST, |(_, hardware)| *hardware)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SERVICE_ADDRESS;

    const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    /// A request of 169.254.1.2 for 169.254.169.254, as Linux sends it.
    fn request() -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend(GUEST);
        packet.extend([169, 254, 1, 2]);
        packet.extend([0; 6]);
        packet.extend([169, 254, 169, 254]);
        packet
    }

    fn answer(packet: &[u8]) -> (Result<(), DropReason>, Vec<u8>, Neighbours) {
        let (mut neighbours, mut outgoing) = (Neighbours::default(), Outgoing::new());
        let result = answer_arp(packet, Addresses(None), &mut neighbours, &mut outgoing);
        (result, outgoing.unsent().to_vec(), neighbours)
    }

    #[test]
    fn a_request_is_answered_byte_by_byte() {
        let (result, sent, neighbours) = answer(&request());
        assert_eq!(result, Ok(()));
        let mut expected = vec![0, 0, 0, 42];
        expected.extend(GUEST);
        expected.extend([2, 0, 169, 254, 169, 254, 8, 6]);
        expected.extend([0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 169, 254, 169, 254, 169, 254, 169, 254]);
        expected.extend(GUEST);
        expected.extend([169, 254, 1, 2]);
        assert_eq!(sent, expected);
        assert_eq!(neighbours.find(Ipv4Addr::new(169, 254, 1, 2)).0, GUEST);
    }

    #[test]
    fn a_probe_is_answered_and_not_learned() {
        let mut probe = request();
        probe[14..18].fill(0);
        let (result, sent, neighbours) = answer(&probe);
        assert_eq!((result, sent.len()), (Ok(()), 46));
        assert_eq!(neighbours.find(Ipv4Addr::UNSPECIFIED), EthernetAddress::BROADCAST);
    }

    #[test]
    fn other_arp_is_not_answered() {
        let changed = |at: usize, byte: u8| {
            let mut packet = request();
            packet[at] = byte;
            answer(&packet)
        };
        assert_eq!(changed(27, 253).0, Err(DropReason::ForeignDestination));
        assert_eq!(changed(7, 2).0, Err(DropReason::ForeignDestination));
        assert_eq!(changed(8, 0x53).0, Err(DropReason::InvalidSource));
        assert_eq!(changed(1, 6).0, Err(DropReason::MalformedArp));
        assert_eq!(changed(4, 200).0, Err(DropReason::MalformedArp));
        let mut claim = request();
        claim[14..18].copy_from_slice(&SERVICE_ADDRESS.octets());
        assert_eq!(answer(&claim).0, Err(DropReason::InvalidSource));
        assert_eq!(answer(&request()[..27]).0, Err(DropReason::MalformedArp));
        assert!(answer(&claim).1.is_empty());
    }

    #[test]
    fn headers_are_sorted() {
        let frame = |destination: [u8; 6], source: [u8; 6], ethertype: [u8; 2], length: usize| {
            let mut frame = [&destination[..], &source, &ethertype].concat();
            frame.resize(length, 0);
            parse(&frame, 1500, Addresses(None)).err()
        };
        let own = SERVICE_HARDWARE_ADDRESS;
        assert_eq!(frame(own, GUEST, [8, 0], 60), None);
        assert_eq!(frame([255; 6], GUEST, [8, 6], 60), None);
        assert_eq!(frame(own, GUEST, [8, 0], 1514), None);
        assert_eq!(frame(own, GUEST, [8, 0], 1515), Some(DropReason::Oversized));
        assert_eq!(frame(own, GUEST, [8, 0], 13), Some(DropReason::Truncated));
        assert_eq!(
            frame([0x33, 0x33, 0, 0, 0, 2], GUEST, [0x86, 0xdd], 90),
            Some(DropReason::Ipv6)
        );
        assert_eq!(frame(GUEST, GUEST, [8, 0], 60), Some(DropReason::ForeignDestination));
        assert_eq!(frame(own, own, [8, 0], 60), Some(DropReason::InvalidSource));
        assert_eq!(frame(own, [255; 6], [8, 0], 60), Some(DropReason::InvalidSource));
        assert_eq!(frame(own, GUEST, [0x81, 0], 60), Some(DropReason::OtherProtocol));
    }

    #[test]
    fn neighbours_are_bounded() {
        let mut neighbours = Neighbours::default();
        for last in 0..=255 {
            neighbours
                .learn(Ipv4Addr::new(169, 254, 9, last), EthernetAddress([2, 0, 0, 0, 0, last]));
        }
        assert_eq!(neighbours.0.len(), Neighbours::LIMIT);
        assert_eq!(neighbours.find(Ipv4Addr::new(169, 254, 9, 255)).0[5], 255);
        assert_eq!(neighbours.find(Ipv4Addr::new(169, 254, 9, 1)), EthernetAddress::BROADCAST);
    }
}
