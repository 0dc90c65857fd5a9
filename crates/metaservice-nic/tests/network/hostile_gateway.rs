//! Whatever a guest sends through the card, and whatever the owner of the gateway makes of it, the
//! card does not crash, keeps its limits, and continues to serve.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use metaservice_nic::frame::Outgoing;
use metaservice_nic::interface::{AttemptId, AttemptProgress, ConnectionId, Interface};
use metaservice_nic::{Config, Datagram, EchoRequest, Limits, Mtu, Unreachable};
use metaservice_testing::network::{ADDRESS, Flags, HARDWARE, Segment, ipv4_frame};
use proptest::prelude::*;

use crate::joined::{Pair, memory};
use crate::routed::{PEER, guest, network, pair_with, to};

/// What the guest or the owner does.
#[derive(Debug, Clone)]
enum Act {
    Frame(Vec<u8>),
    /// A segment of the guest from a port to a port of the peer. Its numbers are offsets from those
    /// that the card has used last.
    Segment {
        from: u16,
        to: u16,
        sequence: i32,
        acknowledged: i32,
        flags: u8,
        length: usize,
    },
    Accept,
    Refuse(Option<Unreachable>),
    Call {
        port: u16,
        from: u16,
    },
    /// The owner looks at the attempts that it has answered, and reads and writes.
    Own,
    Reset,
    Release,
    Answer,
    Send(usize),
    Pass(u64),
    Stop,
}

fn addresses() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        4 => Just(PEER),
        1 => Just(network().router),
        1 => Just(Ipv4Addr::new(169, 254, 169, 254)),
        1 => any::<[u8; 4]>().prop_map(Ipv4Addr::from),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![4 => Just(network().guest), 1 => Just(ADDRESS), 1 => addresses()];
    let protocol = prop_oneof![2 => Just(1u8), 1 => Just(6), 2 => Just(17), 1 => any::<u8>()];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let packet = (source, addresses(), protocol, bytes(), any::<bool>(), any::<u8>());
    let whole = packet.prop_map(|(from, to, protocol, mut payload, correct, kind)| {
        if correct && protocol == 17 && payload.len() >= 8 {
            let length = u16::try_from(payload.len()).unwrap();
            payload[4..6].copy_from_slice(&length.to_be_bytes());
            payload[6..8].fill(0);
        }
        if correct && protocol == 1 && payload.len() >= 8 {
            payload[0] = if kind < 128 { 8 } else { 3 };
            payload[1] = kind % 16;
            let mut message = smoltcp::wire::Icmpv4Packet::new_unchecked(&mut payload[..]);
            message.fill_checksum();
        }
        ipv4_frame(from, to, protocol, &payload)
    });
    let arp = (any::<u8>(), addresses(), addresses()).prop_map(|(operation, from, to)| {
        let mut frame = [&[0xff; 6][..], &HARDWARE, &[8, 6, 0, 1, 8, 0, 6, 4, 0]].concat();
        frame.push(operation % 4);
        frame.extend(HARDWARE);
        frame.extend(from.octets());
        frame.extend([0; 6]);
        frame.extend(to.octets());
        frame
    });
    // One byte of a good frame is changed.
    (
        prop_oneof![4 => whole, 1 => arp],
        proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(mut frame, change)| {
            if let Some((at, byte)) = change {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            frame
        })
}

fn act() -> impl Strategy<Value = Act> {
    let near =
        || prop_oneof![6 => Just(0i32), 2 => -3i32..3, 1 => -70_000i32..70_000, 1 => any::<i32>()];
    let flags = prop_oneof![3 => Just(2u8), 4 => Just(16), 2 => Just(18), 1 => Just(17), 1 => Just(20), 1 => 0u8..64];
    let length = prop_oneof![3 => Just(0usize), 1 => 1usize..60_000];
    let reason = prop_oneof![
        Just(None),
        Just(Some(Unreachable::Host)),
        any::<u16>().prop_map(|mtu| Some(Unreachable::TooLarge { mtu })),
    ];
    prop_oneof![
        6 => frame().prop_map(Act::Frame),
        10 => (1u16..6, 1u16..6, near(), near(), flags, length).prop_map(
            |(from, to, sequence, acknowledged, flags, length)| {
                Act::Segment { from, to, sequence, acknowledged, flags, length }
            }
        ),
        3 => Just(Act::Accept),
        1 => reason.prop_map(Act::Refuse),
        2 => (0u16..6, 0u16..6).prop_map(|(port, from)| Act::Call { port, from }),
        4 => Just(Act::Own),
        1 => Just(Act::Reset),
        1 => Just(Act::Release),
        2 => Just(Act::Answer),
        1 => (0usize..70_000).prop_map(Act::Send),
        2 => prop_oneof![0u64..100, 0u64..100_000].prop_map(Act::Pass),
        1 => Just(Act::Stop),
    ]
}

/// A card, and an owner of its gateway.
struct Owner {
    interface: Interface,
    outgoing: Outgoing,
    now: Duration,
    /// The numbers that the card has used last.
    sequence: u32,
    acknowledged: u32,
    answered: VecDeque<AttemptId>,
    open: VecDeque<ConnectionId>,
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.routed_connections, limits.attempts, limits.opens) = (4, 4, 2);
    (limits.datagrams, limits.echoes, limits.datagram_bytes) = (8, 4, 100_000);
    limits
}

impl Owner {
    fn new() -> Self {
        let config = Config::default().limits(limits()).network(network());
        Self {
            interface: Interface::new(&config, 1),
            outgoing: Outgoing::new(),
            now: Duration::ZERO,
            sequence: 0,
            acknowledged: 0,
            answered: VecDeque::new(),
            open: VecDeque::new(),
        }
    }

    /// Sends what the card has to send, and remembers its last numbers.
    fn poll(&mut self) {
        self.interface.poll(self.now, &mut self.outgoing);
        for frame in self.outgoing.frames_since(0) {
            if frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6 {
                let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
                let flag = u32::from(frame[47] & 3 != 0);
                (self.sequence, self.acknowledged) = (number(38).wrapping_add(flag), number(42));
            }
        }
        assert!(self.outgoing.unsent().len() < 1 << 20);
        self.outgoing.sent(self.outgoing.unsent().len());
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Frame(frame) => {
                self.interface.receive(&frame, self.now, &mut self.outgoing);
            }
            Act::Segment { from, to: port, sequence, acknowledged, flags, length } => {
                let at = self.acknowledged.wrapping_add_signed(sequence);
                let acknowledged = self.sequence.wrapping_add_signed(acknowledged);
                let payload = vec![3; length];
                let frame = Segment::new(from, at, acknowledged, Flags(flags))
                    .payload(&payload)
                    .frame_between(network().guest, to(port));
                self.interface.receive(&frame, self.now, &mut self.outgoing);
            }
            Act::Accept => {
                if let Some((id, ..)) = self.interface.attempt() {
                    self.interface.accept_attempt(id, self.now);
                    self.answered.push_back(id);
                }
            }
            Act::Refuse(reason) => {
                let new = self.interface.attempt().map(|(id, ..)| id);
                if let Some(id) = new.or_else(|| self.answered.pop_front()) {
                    self.interface.refuse(id, reason);
                }
            }
            Act::Call { port, from } => {
                self.answered.extend(self.interface.connect(port, to(from), self.now));
            }
            Act::Own => self.own(),
            Act::Reset => {
                if let Some(id) = self.open.front() {
                    self.interface.reset(*id);
                }
            }
            Act::Release => {
                if let Some(id) = self.open.pop_front() {
                    self.interface.release(id, self.now);
                }
            }
            Act::Answer => {
                if let Some(request) = self.interface.receive_echo() {
                    self.interface.refuse_echo(&request, Unreachable::Host);
                    self.interface.answer_echo(request);
                }
                if let Some(Datagram { source, destination, .. }) =
                    self.interface.receive_datagram()
                {
                    self.interface.send_unreachable(source, destination, Unreachable::Port);
                }
            }
            Act::Send(length) => {
                let (source, destination) = (to(53), SocketAddrV4::new(network().guest, 5000));
                self.interface.send_datagram(Datagram {
                    source,
                    destination,
                    payload: vec![0; length],
                });
                self.interface.answer_echo(EchoRequest {
                    source: network().guest,
                    destination: PEER,
                    identifier: 1,
                    sequence: 1,
                    payload: vec![0; length],
                });
            }
            Act::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Act::Stop => self.interface.stop_routing(),
        }
        self.poll();
    }

    fn own(&mut self) {
        for id in self.answered.drain(..).collect::<Vec<_>>() {
            match self.interface.attempt_progress(id) {
                AttemptProgress::Pending => self.answered.push_back(id),
                AttemptProgress::Established(id) => self.open.push_back(id),
                _ => {}
            }
        }
        for id in &self.open {
            let _ = self.interface.read(*id, |bytes| bytes.len().min(1000));
            let _ = self.interface.write(*id, &[5; 3000]);
        }
    }

    /// Whether everything ends when the owner lets it go.
    fn ends(&mut self) -> bool {
        while let Some((id, ..)) = self.interface.attempt() {
            self.answered.push_back(id);
        }
        for id in std::mem::take(&mut self.answered) {
            self.interface.refuse(id, None);
        }
        for id in std::mem::take(&mut self.open) {
            self.interface.release(id, self.now);
        }
        while let Some(id) = self.interface.accept() {
            self.interface.release(id, self.now);
        }
        for _ in 0..2000 {
            if !self.interface.has_backlog() {
                let Some(deadline) = self.interface.deadline() else { break };
                self.now = self.now.max(deadline);
            }
            self.poll();
            while let Some(id) = self.interface.accept() {
                self.interface.release(id, self.now);
            }
        }
        self.interface.is_idle()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_course_through_the_gateway_is_survived(acts in proptest::collection::vec(act(), 0..120)) {
        let mut owner = Owner::new();
        for act in acts {
            owner.perform(act);
        }
        prop_assert!(owner.ends(), "{:?}", owner.interface);
        // A new guest is served by the same card.
        let Owner { interface, outgoing, now, .. } = owner;
        let mut pair = Pair { interface, outgoing, guest: guest(Mtu::JUMBO.get()), now };
        prop_assert!(pair.serves());
    }
}

#[test]
fn a_flood_of_attempts_takes_no_more_and_no_more() {
    let mut pair = pair_with(Limits::default());
    assert!(pair.serves());
    let flood = |pair: &mut Pair, sequence| {
        for port in 1..20_000 {
            let syn = Segment::syn(port, sequence).frame_between(network().guest, to(443));
            pair.inject(&syn);
        }
        assert!(pair.take_output().is_empty(), "no owner has answered");
    };
    flood(&mut pair, 1);
    let before = memory();
    (2..12).for_each(|sequence| flood(&mut pair, sequence));
    let taken = memory().saturating_sub(before);
    assert!(taken < 4 << 20, "{taken} bytes for attempts that no owner takes");
    let waiting = std::iter::from_fn(|| pair.interface.attempt()).count();
    assert_eq!(waiting, Limits::default().attempts);
    assert!(pair.serves());
    let statistics = pair.interface.statistics();
    assert_eq!(statistics.displaced, 11 * 19_999 - 1024);
}
