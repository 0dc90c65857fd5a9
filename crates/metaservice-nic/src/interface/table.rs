//! All connections of a card: which connection a segment belongs to, and which one gets a turn
//! when.
//!
//! It owns the limits on new connections, the queue of connections with something to do, and their
//! timers. It does not know the content of packets.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, RandomState as Seeds},
    time::Duration,
};

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::{
    attempts::{Attempts, Place},
    budget::Ceiling,
    device::Link,
    flow::{AttemptId, ConnectionId, Flow},
    handshake::Handshake,
    segment::Segment,
    share::Share,
    spares::Spares,
    tcb::{Advance, Expired, HANDSHAKE_TIMEOUT, Phase, Tcb},
};
use crate::{config::Config, statistics::Statistics};

/// The headers of a segment without options, in bytes.
const HEADERS: usize = 20 + 20;

/// The size of a full segment for a guest that does not announce one (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: usize = 536;

pub(super) struct Table {
    /// The largest segment in bytes.
    pub(super) segment: usize,
    /// The ports on which SYNs are accepted. Empty after the end of listening.
    ports: Vec<u16>,
    next: u64,
    tcbs: HashMap<ConnectionId, Tcb>,
    flows: HashMap<Flow, ConnectionId>,
    /// The limits on connections to the service, and on those through the card.
    service: Share,
    pub(super) routed: Share,
    /// The most attempts of the host that wait for the guest.
    pub(super) opens: usize,
    pub(super) attempts: Attempts,
    pub(super) spares: Spares,
    /// Makes unpredictable seeds of a counter.
    seeds: Seeds,
    next_seed: u64,
    waiting: VecDeque<ConnectionId>,
    /// The connections with something to do, in the order of their turns.
    queue: VecDeque<ConnectionId>,
    timers: BTreeSet<(Duration, ConnectionId)>,
    changed: BTreeSet<ConnectionId>,
}

/// The result of a SYN.
pub(super) enum Syn {
    Answered(Segment),
    Known(ConnectionId),
    /// It is not answered before somebody decides.
    Waits,
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

impl Table {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        Self {
            segment: usize::from(config.mtu.get()).saturating_sub(HEADERS),
            ports: config.ports.clone(),
            next: 0,
            tcbs: HashMap::new(),
            flows: HashMap::new(),
            service: Share::new(Ceiling::service(&config.limits), config.limits.half_open),
            routed: Share::new(Ceiling::routed(&config.limits), config.limits.attempts),
            opens: config.limits.opens,
            attempts: Attempts::default(),
            spares: Spares::default(),
            seeds: Seeds::new(),
            next_seed: seed,
            waiting: VecDeque::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// The number of connections and handshakes.
    pub(super) fn len(&self) -> usize {
        self.tcbs.len() + self.service.handshakes.len() + self.routed.handshakes.len()
    }

    fn share(&mut self, flow: Flow) -> &mut Share {
        if flow.is_routed() { &mut self.routed } else { &mut self.service }
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
        if let Some(begun) = self.share(flow).handshakes.find(flow) {
            if begun.sequence == syn.seq_number {
                let attempt = begun.attempt;
                let answer = begun.answer(now, link);
                let asked = attempt.and_then(|id| self.attempts.place(id));
                if matches!(asked, Some(Place::Asked(_))) {
                    return Syn::Waits;
                }
                return answer.map_or(Syn::Refused, Syn::Answered);
            }
            // The guest has lost its first attempt, for example by a restart.
            self.forget_handshake(flow);
        }
        let routed = flow.is_routed();
        if !routed && !self.ports.contains(&flow.port) {
            return Syn::Refused;
        }
        if self.share(flow).is_full() {
            tracing::debug!(routed, "connection refused: too many");
            statistics.refused += 1;
            return Syn::Refused;
        }
        let receive = self.share(flow).receive();
        // As large as the guest's segments. Its card may have a smaller MTU.
        let segment = syn.max_seg_size.map_or(DEFAULT_SEGMENT, usize::from).min(self.segment);
        let seed = self.seed();
        let begun = Handshake::begin(flow, packet, syn, (receive, segment), (seed, now), link);
        let Some((mut handshake, answer)) = begun else { return Syn::Refused };
        // A real guest completes a handshake at once, so a flood of SYNs displaces only its own.
        while let Some(oldest) = self.share(flow).displaced() {
            self.forget_handshake(oldest);
            statistics.displaced += 1;
        }
        handshake.attempt = routed.then(|| self.attempts.add(flow));
        self.share(flow).handshakes.put(handshake);
        if routed { Syn::Waits } else { Syn::Answered(answer) }
    }

    /// The answer to the SYN of an attempt. The guest has a new time to complete the handshake.
    pub(super) fn accept_attempt(
        &mut self,
        id: AttemptId,
        now: Duration,
        link: Link<'_>,
    ) -> Option<Segment> {
        let Some(Place::Asked(flow)) = self.attempts.place(id) else { return None };
        let mut handshake = self.routed.handshakes.take(flow)?;
        handshake.deadline = now + HANDSHAKE_TIMEOUT;
        let answer = handshake.answer(now, link);
        self.routed.handshakes.put(handshake);
        self.attempts.set(id, Place::Handshake(flow));
        answer
    }

    /// Ends the handshake of a flow whose attempt was refused. Returns the number and the packet
    /// of its SYN.
    pub(super) fn abandon(&mut self, flow: Flow) -> Option<(TcpSeqNumber, Box<[u8]>)> {
        self.share(flow).handshakes.take(flow).map(Handshake::into_syn)
    }

    /// A number that the guest cannot predict.
    pub(super) fn seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.seeds.hash_one(self.next_seed)
    }

    pub(super) fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        id
    }

    pub(super) fn insert(&mut self, id: ConnectionId, tcb: Tcb) {
        self.share(tcb.flow).take(tcb.grant);
        self.flows.insert(tcb.flow, id);
        self.tcbs.insert(id, tcb);
    }

    /// Ends a handshake, and the attempt that it belongs to.
    fn forget_handshake(&mut self, flow: Flow) {
        let attempt = self.share(flow).handshakes.take(flow).and_then(|taken| taken.attempt);
        if let Some(id) = attempt {
            self.attempts.remove(id);
        }
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
        let share = if flow.is_routed() { &self.routed } else { &self.service };
        let Some(handshake) = share.handshakes.find(flow) else { return Completion::None };
        let asked = handshake.attempt.and_then(|id| self.attempts.place(id));
        if segment.control == TcpControl::Rst {
            if segment.seq_number == handshake.sequence + 1 {
                self.forget_handshake(flow);
            }
            return Completion::Waits;
        }
        // The SYN is not answered, so a right number is a guess.
        let answered = !matches!(asked, Some(Place::Asked(_)));
        if !answered || !handshake.is_completed_by(segment.seq_number, segment.ack_number) {
            return Completion::None;
        }
        let Some(grant) = share.grant_to(handshake.receive) else {
            // The guest repeats the segment: the connection is established later, and is not lost.
            tracing::debug!(?flow, "a connection waits: too many, or too much memory is taken");
            statistics.refused += 1;
            return Completion::Waits;
        };
        let buffers = (grant, self.spares.take(grant));
        let Some(mut tcb) = handshake.establish(buffers, now, link) else {
            return Completion::None;
        };
        tcb.attempt = self.share(flow).handshakes.take(flow).and_then(|taken| taken.attempt);
        let id = self.next_id();
        if let Some(attempt) = tcb.attempt {
            self.attempts.set(attempt, Place::Opening(id));
        }
        self.insert(id, tcb);
        Completion::Established(id)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(tcb) = self.tcbs.remove(&id) else {
            return;
        };
        self.forget_flow(id, tcb.flow);
        match tcb.attempt {
            Some(attempt) if tcb.is_refused() => self.attempts.set(attempt, Place::Refused),
            Some(attempt) => drop(self.attempts.remove(attempt)),
            None => {}
        }
        self.changed.remove(&id);
        if let Some(due) = tcb.due {
            self.timers.remove(&(due, id));
        }
        self.share(tcb.flow).give_back(tcb.grant);
        if let (grant, Some(socket)) = tcb.into_spare() {
            self.spares.put(grant, socket);
        }
    }

    /// The bytes of the buffers of all connections, and of those that are kept for the next ones.
    pub(super) fn buffers(&self) -> usize {
        self.service.reserved() + self.routed.reserved() + self.spares.bytes()
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
        let expired = |table: &Self| {
            let [service, routed] = [&table.service, &table.routed];
            service.handshakes.expired(now).or_else(|| routed.handshakes.expired(now))
        };
        while let Some(flow) = expired(self) {
            self.forget_handshake(flow);
            statistics.handshakes_expired += 1;
        }
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
                let flow = tcb.flow;
                match tcb.attempt {
                    Some(attempt) if self.attempts.place(attempt).is_some() => {
                        tcb.phase = Phase::Held;
                        self.attempts.set(attempt, Place::Established(id));
                    }
                    None if !self.ports.is_empty() => self.waiting.push_back(id),
                    // No owner takes it any more.
                    Some(_) | None => {
                        tcb.phase = Phase::Held;
                        tracing::debug!(?flow, "a connection has no owner");
                        self.reset(id, now);
                        return;
                    }
                }
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
        let handshakes = [&self.service, &self.routed].map(|share| share.handshakes.deadline());
        timer.into_iter().chain(handshakes.into_iter().flatten()).min()
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
        for flow in self.service.handshakes.flows() {
            self.forget_handshake(flow);
        }
        while let Some(id) = self.waiting.pop_front() {
            self.reset(id, Duration::ZERO);
        }
    }

    /// The attempts of the guest that are not established, oldest first.
    pub(super) fn asked(&self) -> Vec<AttemptId> {
        let flows = self.routed.handshakes.flows();
        flows.into_iter().filter_map(|flow| self.routed.handshakes.find(flow)?.attempt).collect()
    }

    /// Resets a connection, whose owner still has it.
    pub(super) fn abort(&mut self, id: ConnectionId) {
        if let Some(tcb) = self.tcbs.get_mut(&id) {
            tcb.abort();
            self.enqueue(id);
        }
    }

    /// Resets a connection without an owner.
    pub(super) fn reset(&mut self, id: ConnectionId, now: Duration) {
        self.abort(id);
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
