//! An incomplete handshake: the guest's SYN, without buffers for data.
//!
//! A SYN uses only as much memory as its own length. smoltcp has no connection without buffers, so
//! it gets the SYN twice: at once with tiny buffers, to get its answer, and with the real buffers
//! when the guest has completed the handshake. Both times it draws its sequence number from the
//! same seed. [`Handshake::establish`] checks that the number is the same.

use std::{net::Ipv4Addr, time::Duration};

use smoltcp::{
    iface,
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, TxToken},
    time::Instant,
    wire::{
        EthernetProtocol, HardwareAddress, IpCidr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket,
        TcpRepr, TcpSeqNumber,
    },
};

use super::{
    budget::{Grant, WINDOW},
    device::{self, instant},
    flow::Flow,
    tcb::{HANDSHAKE_TIMEOUT, Tcb},
};
use crate::{
    address::{Mtu, PREFIX_LENGTH, SERVICE_ADDRESS},
    ethernet::{self, Neighbours},
    frame::Outgoing,
};

/// The longest SYN: two headers with all possible options.
const LONGEST_SYN: usize = 60 + 60;

/// The buffer size of a socket that gets no data.
const NEXT_TO_NOTHING: usize = 16;

/// The parts of the card that a handshake needs.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) mtu: Mtu,
    pub(super) checksums: &'a ChecksumCapabilities,
    pub(super) neighbours: &'a Neighbours,
}

pub(super) struct Handshake {
    pub(super) flow: Flow,
    /// The SYN, from its IPv4 header on.
    syn: Box<[u8]>,
    pub(super) sequence: TcpSeqNumber,
    seed: u64,
    /// The service's first sequence number.
    first: TcpSeqNumber,
    /// The size of the receive buffer, which determines the window scale.
    pub(super) receive: usize,
    /// The size of a full segment.
    segment: usize,
    pub(super) deadline: Duration,
}

impl Handshake {
    /// Stores a SYN and answers it. `None` if it cannot be answered.
    pub(super) fn begin(
        flow: Flow,
        packet: &[u8],
        syn: &TcpRepr<'_>,
        (receive, segment): (usize, usize),
        (seed, now): (u64, Duration),
        link: Link<'_>,
    ) -> Option<(Self, SynAck)> {
        if packet.len() > LONGEST_SYN || !syn.payload.is_empty() {
            return None;
        }
        let mut handshake = Self {
            flow,
            syn: packet.into(),
            sequence: syn.seq_number,
            seed,
            first: TcpSeqNumber(0),
            receive,
            segment,
            deadline: now + HANDSHAKE_TIMEOUT,
        };
        let answer = handshake.answer(now, link)?;
        handshake.first = answer.segment.seq_number;
        Some((handshake, answer))
    }

    /// The answer to the SYN. It is the same each time.
    pub(super) fn answer(&self, now: Duration, link: Link<'_>) -> Option<SynAck> {
        let grant = Grant { receive: NEXT_TO_NOTHING, send: NEXT_TO_NOTHING };
        let (_, mut answer) = self.replay(grant, now, link)?;
        let segment = &mut answer.segment;
        // The window of the real buffers. The window in a SYN is never scaled.
        segment.window_len = u16::try_from(self.receive).unwrap_or(u16::MAX);
        let doublings = (self.receive / WINDOW).checked_ilog2().unwrap_or(0);
        segment.window_scale = segment.window_scale.map(|_| u8::try_from(doublings).unwrap_or(0));
        Some(answer)
    }

    /// Whether a segment with these numbers completes it.
    pub(super) fn is_completed_by(
        &self,
        sequence: TcpSeqNumber,
        acknowledged: Option<TcpSeqNumber>,
    ) -> bool {
        sequence == self.sequence + 1 && acknowledged == Some(self.first + 1)
    }

    /// A connection that waits for the segment that completes the handshake.
    pub(super) fn establish(&self, grant: Grant, now: Duration, link: Link<'_>) -> Option<Tcb> {
        let (mut tcb, answer) = self.replay(grant, now, link)?;
        // The guest has this window from the answer.
        tcb.spoke();
        (answer.segment.seq_number == self.first).then_some(tcb)
    }

    /// Gives the SYN to a socket with these buffers.
    fn replay(&self, grant: Grant, now: Duration, link: Link<'_>) -> Option<(Tcb, SynAck)> {
        let mut wire =
            ReplayDevice { incoming: Some(&self.syn), outgoing: Vec::new(), mtu: link.mtu };
        let mut stack = new_stack(self.seed, &mut wire);
        let mut tcb = Tcb::listen(self.flow, grant, self.segment, now).ok()?;
        stack.poll_ingress_single(instant(now), &mut wire, &mut tcb.sockets);
        stack.poll_egress(instant(now), &mut wire, &mut tcb.sockets);
        let packet = Ipv4Packet::new_checked(&wire.outgoing).ok()?;
        let segment = TcpPacket::new_checked(packet.payload()).ok()?;
        let (from, to) = (SERVICE_ADDRESS.into(), self.flow.peer.into());
        let segment = TcpRepr::parse(&segment, &from, &to, link.checksums).ok()?;
        let answers = segment.ack_number == Some(self.sequence + 1) && segment.payload.is_empty();
        let segment = TcpRepr { payload: &[], ..segment };
        answers.then_some((tcb, SynAck { peer: self.flow.peer, segment }))
    }
}

/// The answer to a SYN.
pub(super) struct SynAck {
    peer: Ipv4Addr,
    segment: TcpRepr<'static>,
}

impl SynAck {
    pub(super) fn send(&self, link: Link<'_>, outgoing: &mut Outgoing) {
        let Link { checksums, neighbours, .. } = link;
        let header = Ipv4Repr {
            src_addr: SERVICE_ADDRESS,
            dst_addr: self.peer,
            next_header: IpProtocol::Tcp,
            payload_len: self.segment.buffer_len(),
            hop_limit: 64,
        };
        let length = header.buffer_len() + self.segment.buffer_len();
        let find = |_: &[u8]| neighbours.find(self.peer);
        ethernet::push(outgoing, find, EthernetProtocol::Ipv4, length, |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            header.emit(&mut packet, checksums);
            let (from, to) = (SERVICE_ADDRESS.into(), self.peer.into());
            let mut payload = TcpPacket::new_unchecked(packet.payload_mut());
            self.segment.emit(&mut payload, &from, &to, checksums);
        });
    }
}

/// smoltcp's interface, with the service's address.
pub(super) fn new_stack(seed: u64, wire: &mut impl Device) -> iface::Interface {
    let mut config = iface::Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut stack = iface::Interface::new(config, wire, Instant::ZERO);
    stack.update_ip_addrs(|addresses| {
        // The list is empty, and has room for at least one address.
        let _ = addresses.push(IpCidr::new(SERVICE_ADDRESS.into(), PREFIX_LENGTH));
    });
    stack
}

/// A device that receives one packet and keeps the last one that was sent.
struct ReplayDevice<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: Vec<u8>,
    mtu: Mtu,
}

impl Device for ReplayDevice<'_> {
    type RxToken<'token>
        = device::ReceivedPacket<'token>
    where
        Self: 'token;
    type TxToken<'token>
        = Kept<'token>
    where
        Self: 'token;

    fn receive(&mut self, _: Instant) -> Option<(device::ReceivedPacket<'_>, Kept<'_>)> {
        let packet = self.incoming.take()?;
        Some((device::ReceivedPacket(packet), Kept(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Kept<'_>> {
        Some(Kept(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        device::capabilities(self.mtu)
    }
}

struct Kept<'a>(&'a mut Vec<u8>);

impl TxToken for Kept<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.0.clear();
        self.0.resize(length, 0);
        fill(self.0)
    }
}
