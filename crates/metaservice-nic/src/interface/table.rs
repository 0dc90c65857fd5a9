//! All connections of a card: which connection a segment belongs to, and which one gets a turn
//! when.
//!
//! It owns the limits on new connections, the queue of connections with something to do, and their
//! timers. It does not know the content of packets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, RandomState as Seeds},
    time::Duration,
};

use smoltcp::wire::{TcpControl, TcpRepr};

use super::{
    budget,
    flow::{ConnectionId, Flow},
    handshake::{Handshake, Link, SynAck},
    tcb::{Advance, Expired, Phase, Tcb},
};
use crate::{
    config::{Config, Limits},
    statistics::Statistics,
};

/// The headers of a segment without options, in bytes.
const HEADERS: usize = 20 + 20;

/// The size of a full segment for a guest that does not announce one (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: usize = 536;

pub(super) struct Table {
    limits: Limits,
    /// The largest segment in bytes.
    segment: usize,
    /// The ports on which SYNs are accepted. Empty after the end of listening.
    ports: Vec<u16>,
    next: u64,
    tcbs: HashMap<ConnectionId, Tcb>,
    flows: HashMap<Flow, ConnectionId>,
    handshakes: Handshakes,
    /// Makes unpredictable seeds of a counter.
    seeds: Seeds,
    next_seed: u64,
    waiting: VecDeque<ConnectionId>,
    /// The connections with something to do, in the order of their turns.
    queue: VecDeque<ConnectionId>,
    timers: BTreeSet<(Duration, ConnectionId)>,
    changed: BTreeSet<ConnectionId>,
    /// The bytes of all granted buffers.
    reserved: usize,
}

/// The result of a SYN.
pub(super) enum Syn {
    Answered(SynAck),
    Known(ConnectionId),
    Refused,
}

/// The result of a segment for a handshake.
pub(super) enum Completion {
    Established(ConnectionId),
    /// The segment is not answered.
    Waits,
    /// There is no handshake, or the segment does not belong to it.
    None,
}

/// The incomplete handshakes, oldest first.
#[derive(Default)]
struct Handshakes {
    next: u64,
    flows: HashMap<Flow, u64>,
    ages: BTreeMap<u64, Handshake>,
    /// The bytes of buffers that all of them may need.
    planned: usize,
}

impl Handshakes {
    fn len(&self) -> usize {
        self.ages.len()
    }

    fn find(&self, flow: Flow) -> Option<&Handshake> {
        self.ages.get(self.flows.get(&flow)?)
    }

    fn put(&mut self, handshake: Handshake) {
        self.planned += budget::plan(handshake.receive);
        self.flows.insert(handshake.flow, self.next);
        self.ages.insert(self.next, handshake);
        self.next += 1;
    }

    fn take(&mut self, flow: Flow) {
        let taken = self.flows.remove(&flow).and_then(|age| self.ages.remove(&age));
        self.planned -= taken.map_or(0, |taken| budget::plan(taken.receive));
    }

    fn take_oldest(&mut self) {
        if let Some(flow) = self.ages.first_key_value().map(|(_, oldest)| oldest.flow) {
            self.take(flow);
        }
    }

    /// The deadline of the oldest one.
    fn deadline(&self) -> Option<Duration> {
        self.ages.first_key_value().map(|(_, oldest)| oldest.deadline)
    }

    /// Removes those whose deadline has passed, and returns their number.
    fn expire(&mut self, now: Duration) -> u64 {
        let before = self.len();
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.take_oldest();
        }
        u64::try_from(before - self.len()).unwrap_or(u64::MAX)
    }
}

impl Table {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        Self {
            limits: config.limits,
            segment: usize::from(config.mtu.get()).saturating_sub(HEADERS),
            ports: config.ports.clone(),
            next: 0,
            tcbs: HashMap::new(),
            flows: HashMap::new(),
            handshakes: Handshakes::default(),
            seeds: Seeds::new(),
            next_seed: seed,
            waiting: VecDeque::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
            reserved: 0,
        }
    }

    /// The number of connections and handshakes.
    pub(super) fn len(&self) -> usize {
        self.tcbs.len() + self.handshakes.len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Tcb> {
        self.tcbs.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Tcb> {
        self.tcbs.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tcb> {
        self.tcbs.values().filter(|tcb| !tcb.over)
    }

    pub(super) fn find(&self, flow: Flow) -> Option<ConnectionId> {
        self.flows.get(&flow).copied()
    }

    /// Handles a SYN: it belongs to a connection, begins or repeats a handshake, or is refused.
    pub(super) fn syn(
        &mut self,
        flow: Flow,
        packet: &[u8],
        syn: &TcpRepr<'_>,
        now: Duration,
        link: Link<'_>,
        statistics: &mut Statistics,
    ) -> Syn {
        if let Some(id) = self.find(flow) {
            return Syn::Known(id);
        }
        if let Some(begun) = self.handshakes.find(flow) {
            if begun.sequence == syn.seq_number {
                return begun.answer(now, link).map_or(Syn::Refused, Syn::Answered);
            }
            // The guest has lost its first attempt, for example by a restart.
            self.handshakes.take(flow);
        }
        if !self.ports.contains(&flow.port) {
            return Syn::Refused;
        }
        if self.tcbs.len() >= self.limits.connections {
            tracing::debug!(open = self.tcbs.len(), "connection refused: too many");
            statistics.refused += 1;
            return Syn::Refused;
        }
        // If there is no memory now, there may be some when the handshake is complete.
        let open = self.len();
        let wanted = self.reserved.saturating_add(self.handshakes.planned);
        let receive = budget::receive(&self.limits, open, wanted);
        // As large as the guest's segments. Its card may have a smaller MTU.
        let segment = syn.max_seg_size.map_or(DEFAULT_SEGMENT, usize::from).min(self.segment);
        let seed = self.seeds.hash_one(self.next_seed);
        self.next_seed += 1;
        let begun = Handshake::begin(flow, packet, syn, (receive, segment), (seed, now), link);
        let Some((handshake, answer)) = begun else { return Syn::Refused };
        // A real guest completes a handshake at once, so a flood of SYNs displaces only its own.
        while self.handshakes.len() >= self.limits.half_open.max(1) {
            self.handshakes.take_oldest();
            statistics.displaced += 1;
        }
        self.handshakes.put(handshake);
        Syn::Answered(answer)
    }

    /// Handles a segment without a connection, for the handshake of its flow.
    pub(super) fn complete(
        &mut self,
        flow: Flow,
        segment: &TcpRepr<'_>,
        now: Duration,
        link: Link<'_>,
        statistics: &mut Statistics,
    ) -> Completion {
        let Some(handshake) = self.handshakes.find(flow) else { return Completion::None };
        if segment.control == TcpControl::Rst {
            if segment.seq_number == handshake.sequence + 1 {
                self.handshakes.take(flow);
            }
            return Completion::Waits;
        }
        if !handshake.is_completed_by(segment.seq_number, segment.ack_number) {
            return Completion::None;
        }
        let open = self.tcbs.len();
        let planned = self.handshakes.planned - budget::plan(handshake.receive);
        let receive = handshake.receive;
        let grant = budget::grant(&self.limits, open, self.reserved, planned, receive);
        let Some(grant) = grant else {
            // The guest repeats the segment: the connection is established later, and is not lost.
            tracing::debug!(open, "a connection waits: too many, or too much memory is taken");
            statistics.refused += 1;
            return Completion::Waits;
        };
        let Some(tcb) = handshake.establish(grant, now, link) else { return Completion::None };
        self.handshakes.take(flow);
        let id = ConnectionId(self.next);
        self.next += 1;
        self.reserved += grant.total();
        self.tcbs.insert(id, tcb);
        self.flows.insert(flow, id);
        Completion::Established(id)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(tcb) = self.tcbs.remove(&id) else {
            return;
        };
        self.forget_flow(id, tcb.flow);
        self.changed.remove(&id);
        if let Some(due) = tcb.due {
            self.timers.remove(&(due, id));
        }
        self.reserved -= tcb.grant.total();
    }

    /// Frees the ports for another connection.
    fn forget_flow(&mut self, id: ConnectionId, flow: Flow) {
        if self.flows.get(&flow) == Some(&id) {
            self.flows.remove(&flow);
        }
    }

    /// Gives a connection a turn at the next poll.
    pub(super) fn enqueue(&mut self, id: ConnectionId) {
        if let Some(tcb) = self.tcbs.get_mut(&id)
            && !tcb.queued
        {
            tcb.queued = true;
            self.queue.push_back(id);
        }
    }

    /// Gives a turn to each connection whose time has come.
    pub(super) fn enqueue_due(&mut self, now: Duration, statistics: &mut Statistics) {
        statistics.handshakes_expired += self.handshakes.expire(now);
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            if let Some(tcb) = self.tcbs.get_mut(&id) {
                tcb.due = None;
            }
            self.enqueue(id);
        }
    }

    /// The connection whose turn it is.
    pub(super) fn dequeue(&mut self) -> Option<ConnectionId> {
        let id = self.queue.pop_front()?;
        if let Some(tcb) = self.tcbs.get_mut(&id) {
            tcb.queued = false;
        }
        Some(id)
    }

    /// Ends a turn. `settled`: there is nothing more to send now. `next`: when TCP has something to
    /// do again.
    pub(super) fn served(
        &mut self,
        id: ConnectionId,
        now: Duration,
        settled: bool,
        next: Option<Duration>,
        expired: Option<Expired>,
        statistics: &mut Statistics,
    ) {
        let Some(tcb) = self.tcbs.get_mut(&id) else {
            return;
        };
        match expired {
            Some(Expired::Handshake) => {
                statistics.handshakes_expired += 1;
                return self.remove(id);
            }
            Some(Expired::Delivery) => statistics.abandoned += 1,
            Some(Expired::Linger) | None => {}
        }
        match tcb.advance(now, settled) {
            Advance::Nothing => {}
            Advance::Established => {
                statistics.connections += 1;
                if self.ports.is_empty() {
                    tcb.phase = Phase::Held;
                    self.reset(id, now);
                    return;
                }
                self.waiting.push_back(id);
            }
            Advance::Gone => return self.remove(id),
        }
        self.changed.insert(id);
        let Some(tcb) = self.tcbs.get_mut(&id) else {
            return;
        };
        let due = if tcb.over { None } else { next.into_iter().chain(tcb.deadline()).min() };
        let before = std::mem::replace(&mut tcb.due, due);
        let (over, flow) = (tcb.over, tcb.flow);
        if before != due {
            if let Some(before) = before {
                self.timers.remove(&(before, id));
            }
            if let Some(due) = due {
                self.timers.insert((due, id));
            }
        }
        if over {
            self.forget_flow(id, flow);
        } else if !settled {
            self.enqueue(id);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|&(due, _)| due);
        timer.into_iter().chain(self.handshakes.deadline()).min()
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn accept(&mut self) -> Option<ConnectionId> {
        let id = self.waiting.pop_front()?;
        if let Some(tcb) = self.tcbs.get_mut(&id) {
            tcb.phase = Phase::Held;
        }
        Some(id)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn stop_listening(&mut self) {
        self.ports.clear();
        self.handshakes = Handshakes::default();
        while let Some(id) = self.waiting.pop_front() {
            self.reset(id, Duration::ZERO);
        }
    }

    /// Ends a connection that was never accepted.
    fn reset(&mut self, id: ConnectionId, now: Duration) {
        if let Some(tcb) = self.tcbs.get_mut(&id) {
            tcb.abort();
        }
        self.release(id, now);
    }

    pub(super) fn release(&mut self, id: ConnectionId, now: Duration) {
        let Some(tcb) = self.tcbs.get_mut(&id) else {
            return;
        };
        if tcb.over {
            self.remove(id);
        } else {
            tcb.release(now);
            self.enqueue(id);
        }
    }

    pub(super) fn take_changes(&mut self) -> impl Iterator<Item = ConnectionId> + use<> {
        std::mem::take(&mut self.changed).into_iter()
    }
}
