//! An incomplete handshake: the guest's SYN, without buffers for data.
//!
//! A SYN uses only as much memory as its own length. smoltcp has no connection without buffers, so
//! it gets the SYN twice: at once with tiny buffers, to get its answer, and with the real buffers
//! when the guest has completed the handshake. Both times it draws its sequence number from the
//! same seed. [`Handshake::establish`] checks that the number is the same.

use std::{net::Ipv4Addr, time::Duration};

use smoltcp::{
    iface,
    phy::{Device, DeviceCapabilities, TxToken},
    socket::tcp::Socket,
    time::Instant,
    wire::{HardwareAddress, IpCidr, Ipv4Packet, TcpPacket, TcpRepr, TcpSeqNumber},
};

use super::{
    budget::{Grant, WINDOW},
    device::{self, Link, instant},
    flow::{AttemptId, Flow},
    segment::Segment,
    tcb::{HANDSHAKE_TIMEOUT, Tcb},
};
use crate::address::Mtu;

/// The longest SYN: two headers with all possible options.
const LONGEST_SYN: usize = 60 + 60;

/// The buffer size of a socket that gets no data.
const NEXT_TO_NOTHING: usize = 16;

pub(super) struct Handshake {
    pub(super) flow: Flow,
    /// The attempt to connect through the card that it belongs to.
    pub(super) attempt: Option<AttemptId>,
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
    ) -> Option<(Self, Segment)> {
        if packet.len() > LONGEST_SYN || !syn.payload.is_empty() {
            return None;
        }
        let mut handshake = Self {
            flow,
            attempt: None,
            syn: packet.into(),
            sequence: syn.seq_number,
            seed,
            first: TcpSeqNumber(0),
            receive,
            segment,
            deadline: now + HANDSHAKE_TIMEOUT,
        };
        let answer = handshake.answer(now, link)?;
        handshake.first = answer.content.seq_number;
        Some((handshake, answer))
    }

    /// The answer to the SYN. It is the same each time.
    pub(super) fn answer(&self, now: Duration, link: Link<'_>) -> Option<Segment> {
        let grant = Grant { receive: NEXT_TO_NOTHING, send: NEXT_TO_NOTHING };
        let (_, mut answer) = self.replay((grant, None), now, link)?;
        let segment = &mut answer.content;
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

    /// A connection that waits for the segment that completes the handshake. Its buffers are those
    /// of a spare socket, or new.
    pub(super) fn establish(
        &self,
        buffers: (Grant, Option<Socket<'static>>),
        now: Duration,
        link: Link<'_>,
    ) -> Option<Tcb> {
        let (mut tcb, answer) = self.replay(buffers, now, link)?;
        // The guest has this window from the answer.
        tcb.spoke();
        (answer.content.seq_number == self.first).then_some(tcb)
    }

    /// The number and the packet of the SYN.
    pub(super) fn into_syn(self) -> (TcpSeqNumber, Box<[u8]>) {
        (self.sequence, self.syn)
    }

    /// Gives the SYN to a socket with these buffers.
    fn replay(
        &self,
        buffers: (Grant, Option<Socket<'static>>),
        now: Duration,
        link: Link<'_>,
    ) -> Option<(Tcb, Segment)> {
        let mut wire =
            ReplayDevice { incoming: Some(&self.syn), outgoing: Vec::new(), mtu: link.mtu };
        let mut stack = new_stack(self.seed, &[self.flow.address], &mut wire);
        let mut tcb = Tcb::listen(self.flow, buffers, self.segment, now).ok()?;
        stack.poll_ingress_single(instant(now), &mut wire, &mut tcb.sockets);
        stack.poll_egress(instant(now), &mut wire, &mut tcb.sockets);
        let packet = Ipv4Packet::new_checked(&wire.outgoing).ok()?;
        let segment = TcpPacket::new_checked(packet.payload()).ok()?;
        let (from, to) = (self.flow.address.into(), self.flow.peer.into());
        let segment = TcpRepr::parse(&segment, &from, &to, link.checksums).ok()?;
        let answers = segment.ack_number == Some(self.sequence + 1) && segment.payload.is_empty();
        let content = TcpRepr { payload: &[], ..segment };
        answers.then_some((tcb, Segment { flow: self.flow, content }))
    }
}

/// smoltcp's interface, with these addresses: at most two, the limit of smoltcp.
pub(super) fn new_stack(
    seed: u64,
    addresses: &[Ipv4Addr],
    wire: &mut impl Device,
) -> iface::Interface {
    let mut config = iface::Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut stack = iface::Interface::new(config, wire, Instant::ZERO);
    stack.update_ip_addrs(|list| {
        for address in addresses {
            // The list is empty, and has room for two addresses.
            let _ = list.push(IpCidr::new((*address).into(), 32));
        }
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
