//! The path of packets from the guest that go through the card, to destinations behind it.
//!
//! A packet that the owner of the [`Gateway`](crate::Gateway) does not take in time is dropped and
//! counted.

use std::net::SocketAddrV4;
use std::time::Duration;

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket,
    UdpPacket, UdpRepr,
};

use super::{Interface, flow::Flow};
use crate::frame::Outgoing;
use crate::network::{Datagram, EchoRequest};
use crate::statistics::DropReason;

impl Interface {
    /// Takes a packet of the guest to a destination behind the card.
    pub(super) fn route(
        &mut self,
        header: &Ipv4Repr,
        bytes: &[u8],
        payload: &[u8],
        now: Duration,
        outgoing: &mut Outgoing,
    ) -> Result<(), DropReason> {
        match header.next_header {
            IpProtocol::Tcp => self.receive_tcp(header, bytes, payload, now, outgoing),
            IpProtocol::Udp => self.receive_udp(header, payload),
            IpProtocol::Icmp => self.receive_icmp(header, bytes, payload, now, outgoing),
            _ => Err(DropReason::OtherProtocol),
        }
    }

    fn receive_udp(&mut self, header: &Ipv4Repr, payload: &[u8]) -> Result<(), DropReason> {
        let (from, to) = (header.src_addr, header.dst_addr);
        let packet = UdpPacket::new_checked(payload).map_err(|_| DropReason::MalformedUdp)?;
        let udp = UdpRepr::parse(&packet, &from.into(), &to.into(), &self.checksums);
        let udp = udp.map_err(|_| DropReason::MalformedUdp)?;
        let datagram = Datagram {
            source: SocketAddrV4::new(from, udp.src_port),
            destination: SocketAddrV4::new(to, udp.dst_port),
            payload: packet.payload().to_vec(),
        };
        let router = self.router.as_mut().filter(|router| router.open);
        let router = router.ok_or(DropReason::NotTaken)?;
        let taken = router.datagrams.push(datagram.payload.len(), datagram);
        taken.then_some(()).ok_or(DropReason::NotTaken)
    }

    fn receive_icmp(
        &mut self,
        header: &Ipv4Repr,
        bytes: &[u8],
        payload: &[u8],
        now: Duration,
        outgoing: &mut Outgoing,
    ) -> Result<(), DropReason> {
        let malformed = |_| DropReason::MalformedIcmp;
        let packet = Icmpv4Packet::new_checked(payload).map_err(malformed)?;
        if packet.msg_type() == Icmpv4Message::DstUnreachable && packet.verify_checksum() {
            return self.refuse_call(packet.data());
        }
        match Icmpv4Repr::parse(&packet, &self.checksums).map_err(malformed)? {
            Icmpv4Repr::EchoRequest { .. } if self.addresses.is_router(header.dst_addr) => {
                self.process_stray(bytes, now, outgoing);
                Ok(())
            }
            Icmpv4Repr::EchoRequest { ident, seq_no, data } => {
                let request = EchoRequest {
                    source: header.src_addr,
                    destination: header.dst_addr,
                    identifier: ident,
                    sequence: seq_no,
                    payload: data.to_vec(),
                };
                let router = self.router.as_mut().filter(|router| router.open);
                let router = router.ok_or(DropReason::NotTaken)?;
                let taken = router.echoes.push(data.len(), request);
                taken.then_some(()).ok_or(DropReason::NotTaken)
            }
            _ => Err(DropReason::OtherProtocol),
        }
    }

    /// Ends a connection to the guest whose SYN the guest answers with an ICMP error, as a packet
    /// filter does. `quote` is the beginning of the SYN. Errors about other packets are dropped.
    fn refuse_call(&mut self, quote: &[u8]) -> Result<(), DropReason> {
        let header = quote.first_chunk::<20>().ok_or(DropReason::MalformedIcmp)?;
        let header = Ipv4Packet::new_unchecked(&header[..]);
        let payload = quote.get(usize::from(header.header_len())..).unwrap_or_default();
        let ports = payload.first_chunk::<4>().ok_or(DropReason::MalformedIcmp)?;
        let ports = TcpPacket::new_unchecked(&ports[..]);
        let flow = Flow {
            peer: header.dst_addr(),
            peer_port: ports.dst_port(),
            address: header.src_addr(),
            port: ports.src_port(),
        };
        let tcp = header.next_header() == IpProtocol::Tcp;
        let refused = tcp && self.table.refuse_call(flow);
        refused.then_some(()).ok_or(DropReason::OtherProtocol)
    }
}
