//! Packets that the card sends by itself, without a connection.

use smoltcp::wire::{
    EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UDP_HEADER_LEN, UdpPacket,
    UdpRepr,
};

use super::{device::Link, flow::Flow};
use crate::{
    ethernet,
    frame::Outgoing,
    network::{Datagram, EchoRequest, Unreachable},
};

const HOP_LIMIT: u8 = 64;

/// A segment without data, to the guest.
pub(super) struct Segment {
    pub(super) flow: Flow,
    pub(super) content: TcpRepr<'static>,
}

impl Segment {
    /// The reset that refuses a SYN (RFC 9293, section 3.10.7.1).
    pub(super) fn refusal(flow: Flow, sequence: TcpSeqNumber) -> Self {
        let content = TcpRepr {
            src_port: flow.port,
            dst_port: flow.peer_port,
            control: TcpControl::Rst,
            seq_number: TcpSeqNumber(0),
            ack_number: Some(sequence + 1),
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        Self { flow, content }
    }

    pub(super) fn send(&self, link: Link<'_>, outgoing: &mut Outgoing) {
        let Self { flow, content } = self;
        let (from, to) = (flow.address, flow.peer);
        send(from, to, IpProtocol::Tcp, content.buffer_len(), link, outgoing, |payload| {
            let mut packet = TcpPacket::new_unchecked(payload);
            content.emit(&mut packet, &from.into(), &to.into(), link.checksums);
        });
    }
}

/// The beginning of a packet of the guest, as an ICMP error has it (RFC 792): the header, and 8
/// bytes of the transport, by which the guest finds its socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quote {
    header: Ipv4Repr,
    data: [u8; 8],
}

impl Quote {
    /// `payload` is what follows the header. If it is shorter, zeros follow.
    pub(super) fn new(header: Ipv4Repr, payload: &[u8]) -> Self {
        let mut data = [0; 8];
        let length = payload.len().min(data.len());
        data[..length].copy_from_slice(&payload[..length]);
        Self { header, data }
    }

    pub(super) fn source(&self) -> Ipv4Address {
        self.header.src_addr
    }
}

/// Sends the beginning of a packet of the guest back, with the cause.
pub(super) fn unreachable(
    reason: Unreachable,
    router: Ipv4Address,
    quote: Quote,
    link: Link<'_>,
    outgoing: &mut Outgoing,
) {
    let Quote { header, data } = quote;
    let content = Icmpv4Repr::DstUnreachable { reason: reason.into(), header, data: &data };
    let length = content.buffer_len();
    send(router, header.src_addr, IpProtocol::Icmp, length, link, outgoing, |payload| {
        content.emit(&mut Icmpv4Packet::new_unchecked(&mut *payload), link.checksums);
        if let Unreachable::TooLarge { mtu } = reason {
            // RFC 1191, section 4.
            payload[6..8].copy_from_slice(&mtu.to_be_bytes());
            Icmpv4Packet::new_unchecked(payload).fill_checksum();
        }
    });
}

/// Sends the answer to an echo request to the guest. It fits into the MTU of the link.
pub(super) fn echo_reply(request: &EchoRequest, link: Link<'_>, outgoing: &mut Outgoing) {
    let content = Icmpv4Repr::EchoReply {
        ident: request.identifier,
        seq_no: request.sequence,
        data: &request.payload,
    };
    let (from, to) = (request.destination, request.source);
    send(from, to, IpProtocol::Icmp, content.buffer_len(), link, outgoing, |payload| {
        content.emit(&mut Icmpv4Packet::new_unchecked(payload), link.checksums);
    });
}

/// Sends a datagram to the guest. It fits into the MTU of the link.
pub(super) fn datagram(datagram: &Datagram, link: Link<'_>, outgoing: &mut Outgoing) {
    let (from, to) = (*datagram.source.ip(), *datagram.destination.ip());
    let header =
        UdpRepr { src_port: datagram.source.port(), dst_port: datagram.destination.port() };
    let length = UDP_HEADER_LEN + datagram.payload.len();
    send(from, to, IpProtocol::Udp, length, link, outgoing, |payload| {
        header.emit(
            &mut UdpPacket::new_unchecked(payload),
            &from.into(),
            &to.into(),
            datagram.payload.len(),
            |bytes| bytes.copy_from_slice(&datagram.payload),
            link.checksums,
        );
    });
}

fn send(
    from: Ipv4Address,
    to: Ipv4Address,
    protocol: IpProtocol,
    length: usize,
    link: Link<'_>,
    outgoing: &mut Outgoing,
    fill: impl FnOnce(&mut [u8]),
) {
    let header = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: length,
        hop_limit: HOP_LIMIT,
    };
    let find = |_: &[u8]| link.neighbours.find(to);
    let total = header.buffer_len() + length;
    ethernet::push(outgoing, find, EthernetProtocol::Ipv4, total, |bytes| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        header.emit(&mut packet, link.checksums);
        fill(packet.payload_mut());
    });
}

impl From<Unreachable> for Icmpv4DstUnreachable {
    fn from(reason: Unreachable) -> Self {
        match reason {
            Unreachable::Network => Self::NetUnreachable,
            Unreachable::Host => Self::HostUnreachable,
            Unreachable::Port => Self::PortUnreachable,
            Unreachable::Prohibited => Self::CommProhibited,
            Unreachable::TooLarge { .. } => Self::FragRequired,
        }
    }
}
