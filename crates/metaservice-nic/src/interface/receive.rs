//! The path of a received frame: Ethernet, IPv4, and then DHCP, TCP or the rest.

use std::time::Duration;

use smoltcp::{
    socket::tcp::State,
    wire::{
        DHCP_SERVER_PORT, EthernetAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket,
        TcpRepr, UdpPacket,
    },
};

use super::{
    Interface,
    device::{Link, PacketDevice, instant},
    flow::Flow,
    table::{Completion, Syn},
};
use crate::{address::SERVICE_ADDRESS, ethernet, frame::Outgoing, statistics::DropReason};

impl Interface {
    pub(super) fn dispatch(
        &mut self,
        frame: &[u8],
        now: Duration,
        outgoing: &mut Outgoing,
    ) -> Result<(), DropReason> {
        match ethernet::parse(frame, usize::from(self.mtu.get()), self.addresses)? {
            ethernet::Received::Arp(packet) => {
                ethernet::answer_arp(packet, self.addresses, &mut self.neighbours, outgoing)?;
                self.statistics.arp_replies += 1;
                Ok(())
            }
            ethernet::Received::Ipv4 { source, packet } => {
                self.receive_ipv4(source, packet, now, outgoing)
            }
        }
    }

    fn receive_ipv4(
        &mut self,
        source: EthernetAddress,
        bytes: &[u8],
        now: Duration,
        outgoing: &mut Outgoing,
    ) -> Result<(), DropReason> {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| DropReason::MalformedIpv4)?;
        if packet.more_frags() || packet.frag_offset() != 0 {
            return Err(self.reject(&packet, DropReason::Fragment));
        }
        let header =
            Ipv4Repr::parse(&packet, &self.checksums).map_err(|_| DropReason::MalformedIpv4)?;
        let payload = packet.payload();
        let to = header.dst_addr;
        let for_service = to == SERVICE_ADDRESS;
        if header.next_header == IpProtocol::Udp
            && (for_service || to.is_broadcast() || self.addresses.is_router(to))
            && UdpPacket::new_checked(payload).is_ok_and(|udp| udp.dst_port() == DHCP_SERVER_PORT)
        {
            let answered = self.dhcp.receive(&header, payload, &self.checksums, outgoing)?;
            self.statistics.dhcp_replies += u64::from(answered);
            if let (true, Some(network)) = (answered, self.network) {
                // It is about to have the address, and may say nothing before a host connects.
                self.neighbours.learn(network.guest, source);
            }
            return Ok(());
        }
        if !for_service && !self.addresses.is_routed(to) {
            return Err(self.reject(&packet, DropReason::ForeignDestination));
        }
        // A packet from another address would get no answer, or another's.
        if !self.addresses.may_send(header.src_addr, to) {
            return Err(self.reject(&packet, DropReason::InvalidSource));
        }
        // Options can contain a route (RFC 791), around every decision on the destination.
        if self.network.is_some() && usize::from(packet.header_len()) != header.buffer_len() {
            self.neighbours.learn(header.src_addr, source);
            return Err(self.reject(&packet, DropReason::Options));
        }
        self.neighbours.learn(header.src_addr, source);
        if !for_service {
            return self.route(&header, bytes, payload, now, outgoing);
        }
        if header.next_header == IpProtocol::Tcp {
            return self.receive_tcp(&header, bytes, payload, now, outgoing);
        }
        // smoltcp answers ICMP echo, and reports other ports and protocols as unreachable.
        self.process_stray(bytes, now, outgoing);
        Ok(())
    }

    pub(super) fn receive_tcp(
        &mut self,
        header: &Ipv4Repr,
        bytes: &[u8],
        payload: &[u8],
        now: Duration,
        outgoing: &mut Outgoing,
    ) -> Result<(), DropReason> {
        let segment = TcpPacket::new_checked(payload)
            .and_then(|packet| {
                let (from, to) = (header.src_addr.into(), header.dst_addr.into());
                TcpRepr::parse(&packet, &from, &to, &self.checksums)
            })
            .map_err(|_| DropReason::MalformedTcp)?;
        let flow = Flow {
            peer: header.src_addr,
            peer_port: segment.src_port,
            address: header.dst_addr,
            port: segment.dst_port,
        };
        let opens = segment.control == TcpControl::Syn && segment.ack_number.is_none();
        let link = Link { mtu: self.mtu, checksums: &self.checksums, neighbours: &self.neighbours };
        let id = if opens && flow.is_routed() && !self.routes() {
            None
        } else if opens {
            match self.table.syn(flow, bytes, &segment, now, link, &mut self.statistics) {
                Syn::Answered(answer) => {
                    answer.send(link, outgoing);
                    return Ok(());
                }
                Syn::Known(id) => Some(id),
                Syn::Waits => return Ok(()),
                Syn::Refused => {
                    self.reject_syn(flow, bytes, &segment);
                    None
                }
            }
        } else {
            match self.table.find(flow) {
                Some(id) => Some(id),
                None => {
                    match self.table.complete(flow, &segment, now, link, &mut self.statistics) {
                        Completion::Established(id) => Some(id),
                        Completion::Waits => return Ok(()),
                        Completion::None => None,
                    }
                }
            }
        };
        let Some(id) = id else {
            self.process_stray(bytes, now, outgoing);
            return Ok(());
        };
        let Some(tcb) = self.table.get_mut(id) else {
            return Ok(());
        };
        tcb.expected = segment.ack_number.or(tcb.expected);
        tcb.acknowledgement.came(segment.payload.len(), now);
        tcb.retries = 0;
        let mut wire = PacketDevice {
            incoming: Some(bytes),
            outgoing,
            neighbours: &self.neighbours,
            mtu: self.mtu,
        };
        self.stack.poll_ingress_single(instant(now), &mut wire, &mut tcb.sockets);
        if segment.control == TcpControl::Rst && tcb.socket().state() == State::Closed && !tcb.reset
        {
            tcb.reset = true;
            self.statistics.resets += 1;
        }
        if tcb.is_begun() {
            self.table.enqueue(id);
        } else {
            // The segment did not complete the handshake, so the connection is removed.
            self.table.remove(id);
        }
        Ok(())
    }

    /// Lets smoltcp answer a packet without a connection.
    pub(super) fn process_stray(&mut self, bytes: &[u8], now: Duration, outgoing: &mut Outgoing) {
        let mut wire = PacketDevice {
            incoming: Some(bytes),
            outgoing,
            neighbours: &self.neighbours,
            mtu: self.mtu,
        };
        self.stack.poll_ingress_single(instant(now), &mut wire, &mut self.no_sockets);
    }
}
