//! What the owner of the [`Gateway`](crate::Gateway) says to the guest without a connection.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpSeqNumber, UDP_HEADER_LEN,
    UdpPacket,
};

use super::{
    Interface,
    device::Link,
    flow::Flow,
    replies::{Answer, Message},
    segment::{Quote, Segment},
};
use crate::frame::Outgoing;
use crate::network::{Datagram, EchoRequest, Unreachable};

/// The headers of a UDP datagram, and those of an echo reply, in bytes.
const HEADERS: usize = 20 + UDP_HEADER_LEN;

/// The hop limit in a packet of the guest that the card builds again to quote it.
const HOP_LIMIT: u8 = 64;

impl Interface {
    /// Sends what waits, as far as there is room.
    pub(super) fn reply(&mut self, outgoing: &mut Outgoing) {
        let link = Link { mtu: self.mtu, checksums: &self.checksums, neighbours: &self.neighbours };
        let Some(router) = &mut self.router else { return };
        router.replies.send(router.network.router, link, outgoing);
    }

    pub(super) fn post_segment(&mut self, segment: Segment) {
        self.post(Answer::Segment(Box::new(segment)));
    }

    /// Refuses a SYN: `packet` is the SYN, and has this sequence number.
    pub(super) fn post_refusal(
        &mut self,
        flow: Flow,
        sequence: TcpSeqNumber,
        packet: &[u8],
        reason: Option<Unreachable>,
    ) {
        match reason {
            None => self.post_segment(Segment::refusal(flow, sequence)),
            Some(reason) => {
                let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
                let Ok(header) = Ipv4Repr::parse(&packet, &self.checksums) else { return };
                self.post(Answer::Unreachable(reason, Quote::new(header, packet.payload())));
            }
        }
    }

    fn post(&mut self, answer: Answer) {
        let Some(router) = &mut self.router else { return };
        self.unsent += u64::from(!router.replies.answers.push(0, answer));
    }

    fn post_message(&mut self, bytes: usize, guest: Ipv4Addr, message: Message) {
        let fits = bytes + HEADERS <= usize::from(self.mtu.get());
        let router = self.router.as_mut().filter(|router| fits && router.network.guest == guest);
        let taken = router.is_some_and(|router| router.replies.messages.push(bytes, message));
        self.unsent += u64::from(!taken);
    }

    /// Sends a datagram to the guest with the next [`poll`](Self::poll). It is dropped and counted
    /// if it does not fit into the MTU or the queue, or is not for the guest.
    pub fn send_datagram(&mut self, datagram: Datagram) {
        let (bytes, guest) = (datagram.payload.len(), *datagram.destination.ip());
        self.post_message(bytes, guest, Message::Datagram(datagram));
    }

    /// Tells the guest with the next [`poll`](Self::poll) that datagrams from `source`, its own
    /// end, to `destination` do not arrive. It is dropped and counted if `source` is not the
    /// guest's, or there is no room.
    pub fn send_unreachable(
        &mut self,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        reason: Unreachable,
    ) {
        let mut data = [0; UDP_HEADER_LEN];
        let mut packet = UdpPacket::new_unchecked(&mut data);
        packet.set_src_port(source.port());
        packet.set_dst_port(destination.port());
        packet.set_len(8);
        packet.set_checksum(0);
        let header = Ipv4Repr {
            src_addr: *source.ip(),
            dst_addr: *destination.ip(),
            next_header: IpProtocol::Udp,
            payload_len: UDP_HEADER_LEN,
            hop_limit: HOP_LIMIT,
        };
        self.post_unreachable(Quote::new(header, &data), reason);
    }

    /// Answers an echo request with the next [`poll`](Self::poll), as its destination does.
    pub fn answer_echo(&mut self, request: EchoRequest) {
        self.post_message(request.payload.len(), request.source, Message::Echo(request));
    }

    /// Answers an echo request with an ICMP error.
    pub fn refuse_echo(&mut self, request: &EchoRequest, reason: Unreachable) {
        let content = Icmpv4Repr::EchoRequest {
            ident: request.identifier,
            seq_no: request.sequence,
            data: &request.payload,
        };
        let mut packet = vec![0; content.buffer_len()];
        content.emit(&mut Icmpv4Packet::new_unchecked(&mut packet), &self.checksums);
        let header = Ipv4Repr {
            src_addr: request.source,
            dst_addr: request.destination,
            next_header: IpProtocol::Icmp,
            payload_len: packet.len(),
            hop_limit: HOP_LIMIT,
        };
        self.post_unreachable(Quote::new(header, &packet), reason);
    }

    pub(super) fn post_unreachable(&mut self, quote: Quote, reason: Unreachable) {
        if self.network.is_some_and(|network| network.guest == quote.source()) {
            self.post(Answer::Unreachable(reason, quote));
        } else {
            self.unsent += 1;
        }
    }
}
