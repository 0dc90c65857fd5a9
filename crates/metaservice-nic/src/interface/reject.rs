//! What the guest wants in packets that the card does not carry, because of their form.
//!
//! The packet is dropped and counted. If it would begin something, the owner of the
//! [`Gateway`](crate::Gateway) gets to know what, so that its record of attempts is complete. The
//! guest gets an answer at once, as for each other attempt, unless the answer would go to an
//! address that is not the guest's.

use std::net::SocketAddrV4;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, TcpRepr};

use super::{
    Interface,
    flow::Flow,
    segment::{Quote, Segment},
};
use crate::network::{Protocol, Rejected, Unreachable};
use crate::statistics::DropReason;

/// What a packet begins: its protocol and its ports.
struct Beginning {
    protocol: Protocol,
    source: u16,
    destination: u16,
}

impl Interface {
    /// Notes a packet that is dropped for this reason, and answers it. Returns the reason.
    pub(super) fn reject(&mut self, packet: &Ipv4Packet<&[u8]>, reason: DropReason) -> DropReason {
        let to = packet.dst_addr();
        let Some(beginning) = beginning(packet) else { return reason };
        let protocol = beginning.protocol;
        // Guests look for their neighbours by datagrams to groups and to all hosts of the link.
        if protocol != Protocol::Tcp && (to.is_multicast() || self.addresses.is_broadcast(to)) {
            return reason;
        }
        let Some(router) = &mut self.router else { return reason };
        let destination = SocketAddrV4::new(to, beginning.destination);
        let item = Rejected { protocol, destination, reason, missed: 0 };
        let taken = router.open && router.rejected.push(0, item);
        router.missed = router.missed.saturating_add(u64::from(!taken));
        if reason == DropReason::Options {
            self.refuse_rejected(packet, &beginning);
        }
        reason
    }

    /// Notes a SYN through the card that the table of connections has refused: it has data, or
    /// there is no room.
    pub(super) fn reject_syn(&mut self, flow: Flow, bytes: &[u8], syn: &TcpRepr<'_>) {
        let full = syn.payload.is_empty();
        let reason = if full { DropReason::NotTaken } else { DropReason::MalformedTcp };
        if flow.is_routed()
            && let Ok(packet) = Ipv4Packet::new_checked(bytes)
        {
            self.reject(&packet, reason);
        }
    }

    /// Refuses a packet that comes from the guest's own address and is no fragment.
    fn refuse_rejected(&mut self, packet: &Ipv4Packet<&[u8]>, beginning: &Beginning) {
        if beginning.protocol == Protocol::Tcp {
            let Ok(segment) = TcpPacket::new_checked(packet.payload()) else { return };
            let flow = Flow {
                peer: packet.src_addr(),
                peer_port: beginning.source,
                address: packet.dst_addr(),
                port: beginning.destination,
            };
            self.post_segment(Segment::refusal(flow, segment.seq_number()));
        } else if let Ok(header) = Ipv4Repr::parse(packet, &self.checksums) {
            let quote = Quote::new(header, packet.payload());
            self.post_unreachable(quote, Unreachable::Prohibited);
        }
    }
}

/// What a packet begins. `None`: it continues something, or begins nothing that has an owner.
fn beginning(packet: &Ipv4Packet<&[u8]>) -> Option<Beginning> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FLAGS: usize = 13;
    const ECHO_REQUEST: u8 = 8;
    if packet.frag_offset() != 0 {
        return None;
    }
    let payload = packet.payload();
    let [a, b, c, d, ..] = *payload else { return None };
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match packet.next_header() {
        // The flags of a tiny fragment come with the next one.
        IpProtocol::Tcp => {
            let opens = payload.get(FLAGS).is_none_or(|flags| flags & (SYN | ACK) == SYN);
            opens.then_some(Beginning { protocol: Protocol::Tcp, source, destination })
        }
        IpProtocol::Udp => Some(Beginning { protocol: Protocol::Udp, source, destination }),
        IpProtocol::Icmp if a == ECHO_REQUEST => {
            Some(Beginning { protocol: Protocol::Icmp, source: 0, destination: 0 })
        }
        _ => None,
    }
}
