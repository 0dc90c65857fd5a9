//! Owners of a gateway that accept, refuse, stall, reset, and drop the gateway in the midst, with
//! peers that are slow, in simulated time.
//!
//! Whatever they do, the guest never has a connection that its peer has not accepted, no byte is
//! lost or changed in a connection that ends in order, a reset is seen by the other end, and in the
//! end nothing is left.

use std::time::Duration;

use metaservice_nic::interface::{AttemptId, AttemptProgress, ConnectionId};
use metaservice_nic::{Limits, StreamError, Unreachable};
use metaservice_testing::noise;
use proptest::prelude::*;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use crate::joined::{MINUTE, Pair};
use crate::routed::{pair_with, to};

const STEP: Duration = Duration::from_millis(100);

/// What the owner makes of an attempt of the guest, or the guest of an attempt of the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Refuse,
    Unreachable,
    /// It is never answered.
    Stall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Each end closes its direction after its bytes.
    Order,
    PeerResets,
    GuestResets,
    /// The peer reads nothing and drops the connection after a while.
    PeerStalls,
}

/// One connection, as it is planned. Times are in steps.
#[derive(Debug, Clone)]
struct Plan {
    /// Whether the host connects to the guest.
    inward: bool,
    start: u32,
    delay: u32,
    verdict: Verdict,
    end: End,
    /// Bytes of the guest, and of the peer.
    up: usize,
    down: usize,
    /// The most bytes that the peer reads in one step.
    pace: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Planned,
    /// The guest has sent a SYN.
    Begun,
    Asked(AttemptId, u32),
    Accepted(AttemptId),
    Open(ConnectionId),
    /// The owner has let it go.
    Left,
}

struct Actor {
    plan: Plan,
    port: u16,
    stage: Stage,
    socket: Option<SocketHandle>,
    up: Vec<u8>,
    down: Vec<u8>,
    sent: usize,
    written: usize,
    read: Vec<u8>,
    received: Vec<u8>,
    /// The step in which the owner has let it go or refused it.
    left: Option<u32>,
    guest_ended: bool,
    peer_ended: bool,
    /// The peer has read everything up to the end, or has seen a reset.
    at_end: bool,
    saw_reset: bool,
    refused: bool,
}

impl Actor {
    fn new(plan: Plan, port: u16) -> Self {
        let (up, down) = (noise(plan.up, u32::from(port)), noise(plan.down, 7 + u32::from(port)));
        Self {
            plan,
            port,
            stage: Stage::Planned,
            socket: None,
            up,
            down,
            sent: 0,
            written: 0,
            read: Vec::new(),
            received: Vec::new(),
            left: None,
            guest_ended: false,
            peer_ended: false,
            at_end: false,
            saw_reset: false,
            refused: false,
        }
    }

    fn begin(&mut self, pair: &mut Pair, dropped: bool) {
        if !self.plan.inward {
            self.socket = Some(pair.guest.connect_to(to(self.port)));
            self.stage = Stage::Begun;
            return;
        }
        if self.plan.verdict == Verdict::Accept {
            self.socket = Some(pair.guest.listen(self.port));
        }
        let call = pair.interface.connect(self.port, to(self.port), pair.now);
        assert_eq!(call.is_err(), dropped);
        self.stage = call.map_or(Stage::Left, Stage::Accepted);
    }

    /// The owner's part of a step.
    fn own(&mut self, pair: &mut Pair, step: u32) {
        match self.stage {
            Stage::Asked(id, since) if step >= since + self.plan.delay => {
                self.decide(pair, id, step);
            }
            Stage::Accepted(id) => match pair.interface.attempt_progress(id) {
                AttemptProgress::Pending => {}
                AttemptProgress::Established(id) => self.stage = Stage::Open(id),
                AttemptProgress::Refused => {
                    self.refused = true;
                    self.stage = Stage::Left;
                }
                _ => self.stage = Stage::Left,
            },
            Stage::Open(id) => self.relay(pair, id, step),
            _ => {}
        }
    }

    fn decide(&mut self, pair: &mut Pair, id: AttemptId, step: u32) {
        match self.plan.verdict {
            Verdict::Accept => {
                pair.interface.accept_attempt(id, pair.now);
                self.stage = Stage::Accepted(id);
            }
            Verdict::Stall => {}
            Verdict::Refuse => {
                pair.interface.refuse(id, None);
                (self.stage, self.left) = (Stage::Left, Some(step));
            }
            Verdict::Unreachable => {
                pair.interface.refuse(id, Some(Unreachable::Host));
                self.stage = Stage::Left;
            }
        }
    }

    fn relay(&mut self, pair: &mut Pair, id: ConnectionId, step: u32) {
        if let Ok(Some(count)) = pair.interface.write(id, &self.down[self.written..]) {
            self.written += count;
        }
        let mut left = if self.plan.end == End::PeerStalls { 0 } else { self.plan.pace };
        let result = pair.interface.read(id, |bytes| {
            let count = bytes.len().min(left);
            left -= count;
            self.read.extend(&bytes[..count]);
            count
        });
        match result {
            Ok(Some(0)) if self.plan.end != End::PeerStalls => self.at_end = true,
            Err(StreamError::Reset) => self.saw_reset = true,
            Ok(_) | Err(_) => {}
        }
        let wrote_all = self.written == self.down.len();
        match self.plan.end {
            End::Order if wrote_all && !self.peer_ended => {
                pair.interface.shut_down(id);
                self.peer_ended = true;
            }
            End::Order if self.peer_ended && self.at_end => self.leave(pair, id, step),
            End::PeerResets if wrote_all => {
                pair.interface.reset(id);
                self.leave(pair, id, step);
            }
            End::PeerStalls if step > self.plan.start + self.plan.delay + 100 => {
                self.leave(pair, id, step);
            }
            _ if self.saw_reset => self.leave(pair, id, step),
            _ => {}
        }
    }

    fn leave(&mut self, pair: &mut Pair, id: ConnectionId, step: u32) {
        pair.interface.release(id, pair.now);
        (self.stage, self.left) = (Stage::Left, Some(step));
    }

    /// The guest's part of a step.
    fn act(&mut self, pair: &mut Pair) {
        let Some(socket) = self.socket else { return };
        pair.guest.receive(socket, &mut self.received);
        if pair.guest.tcp(socket).may_send() {
            self.sent += pair.guest.send(socket, &self.up[self.sent..]);
            if self.sent == self.up.len() && !self.guest_ended {
                self.guest_ended = true;
                match self.plan.end {
                    End::GuestResets => pair.guest.tcp(socket).abort(),
                    _ => pair.guest.tcp(socket).close(),
                }
            }
        }
    }

    /// What holds at each time.
    fn check(&self, pair: &Pair, step: u32, dropped: Option<u32>) {
        assert!(self.down.starts_with(&self.received), "the guest got other bytes");
        assert!(self.up.starts_with(&self.read), "the peer got other bytes");
        let Some(socket) = self.socket else { return };
        let state = pair.guest.state(socket);
        let accepted = matches!(self.stage, Stage::Accepted(_) | Stage::Open(_));
        if !accepted && self.read.is_empty() && self.written == 0 && !self.plan.inward {
            assert!(
                matches!(state, State::SynSent | State::Closed) || self.left.is_some(),
                "{state:?}: the peer has not accepted it"
            );
        }
        let refused = self.plan.verdict == Verdict::Refuse && !self.plan.inward;
        let reset = self.plan.end == End::PeerResets && self.plan.verdict == Verdict::Accept;
        if (refused || reset) && self.left.is_some_and(|left| step > left) {
            assert_eq!(state, State::Closed, "the guest learns it at once");
        }
        // Those that wait end with the gateway, and later ones do not begin.
        let waits = matches!(self.stage, Stage::Begun | Stage::Asked(..));
        if waits && !self.plan.inward && dropped.is_some_and(|dropped| step > dropped + 1) {
            let new = step <= self.plan.start + 1;
            assert!(new || state == State::Closed, "{state:?}: the gateway is gone");
        }
    }

    /// What holds in the end.
    fn check_end(&self, dropped: Option<u32>) {
        let accepted = self.plan.verdict == Verdict::Accept;
        let asked = self.plan.start + if self.plan.inward { 0 } else { self.plan.delay };
        let in_time = dropped.is_none_or(|dropped| asked + 3 < dropped);
        if !in_time {
            return;
        }
        if accepted && self.plan.end == End::Order {
            assert!(self.read == self.up && self.received == self.down, "{self:?}");
            assert!(self.at_end, "{self:?}");
        }
        if accepted && self.plan.end == End::GuestResets {
            assert!(self.saw_reset, "{self:?}");
        }
        if accepted && self.plan.end == End::PeerStalls {
            assert!(self.received == self.down, "{self:?}");
        }
        if self.plan.inward && !accepted {
            assert!(self.refused, "{self:?}");
        }
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [self.sent, self.read.len(), self.written, self.received.len()];
        write!(formatter, "{:?} {:?}: sent, read, written, got {counts:?}", self.plan, self.stage)
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let verdict = prop_oneof![
        6 => Just(Verdict::Accept),
        1 => Just(Verdict::Refuse),
        1 => Just(Verdict::Unreachable),
        1 => Just(Verdict::Stall),
    ];
    let end = prop_oneof![
        3 => Just(End::Order),
        1 => Just(End::PeerResets),
        1 => Just(End::GuestResets),
        1 => Just(End::PeerStalls),
    ];
    let size = || prop_oneof![Just(0), 1usize..2000, 1usize..600_000];
    let pace = prop_oneof![Just(usize::MAX), 20_000usize..100_000];
    (any::<bool>(), 0u32..60, 0u32..30, verdict, end, size(), size(), pace).prop_map(
        |(inward, start, delay, verdict, end, up, down, pace)| Plan {
            inward,
            start,
            delay,
            verdict,
            end,
            up,
            down,
            pace,
        },
    )
}

fn run(plans: Vec<Plan>, drop_at: Option<u32>) {
    let mut limits = Limits::default();
    (limits.routed_connections, limits.attempts, limits.opens) = (32, 32, 32);
    let mut pair = pair_with(limits);
    assert!(pair.serves());
    let ports = 1000u16..;
    let mut actors: Vec<_> =
        plans.into_iter().zip(ports).map(|(plan, port)| Actor::new(plan, port)).collect();
    let mut dropped = None;
    for step in 0..600 {
        if drop_at == Some(step) {
            pair.interface.stop_routing();
            dropped = drop_at;
        }
        for actor in &mut actors {
            if actor.plan.start == step {
                actor.begin(&mut pair, dropped.is_some());
            }
        }
        pair.pass(STEP);
        while let Some((id, _, destination)) = pair.interface.attempt() {
            assert_eq!(dropped, None, "an attempt without an owner");
            let actor = &mut actors[usize::from(destination.port()) - 1000];
            if actor.plan.verdict == Verdict::Accept {
                assert_eq!(actor.stage, Stage::Begun, "an attempt comes once");
            }
            actor.stage = Stage::Asked(id, step);
        }
        for actor in &mut actors {
            actor.own(&mut pair, step);
            actor.act(&mut pair);
        }
        pair.settle();
        for actor in &actors {
            actor.check(&pair, step, dropped);
        }
    }
    for actor in &actors {
        actor.check_end(dropped);
        if let Stage::Open(id) = actor.stage {
            pair.interface.release(id, pair.now);
        }
        if let Stage::Asked(id, _) | Stage::Accepted(id) = actor.stage {
            pair.interface.refuse(id, None);
        }
        if let Some(socket) = actor.socket {
            pair.guest.tcp(socket).abort();
        }
    }
    pair.pass(MINUTE);
    assert!(pair.interface.is_idle(), "something is left");
    assert!(pair.serves());
    assert_eq!(pair.interface.statistics().refused, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_an_owner_does_the_guest_sees_the_truth(
        plans in proptest::collection::vec(plan(), 1..10),
        drop_at in proptest::option::of(0u32..150),
    ) {
        run(plans, drop_at);
    }
}
