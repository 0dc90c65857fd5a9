//! All connections of a card: which segment is for which, who is to be served, and when.
//!
//! It owns admission (the limits, and who gives way when they are reached), the queue of
//! connections that have something to do, and their timers. It refuses to know what is on
//! the wire.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use smoltcp::wire::TcpRepr;

use super::{
    ConnectionId, Flow, budget,
    tcb::{Advance, Expired, Phase, Tcb},
};
use crate::{
    config::{Config, Limits},
    statistics::Statistics,
};

/// The headers of a segment without options, in bytes.
const HEADERS: usize = 20 + 20;

/// The bytes of a full segment for a guest that does not say (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: usize = 536;

pub(super) struct Table {
    limits: Limits,
    /// The most bytes of a segment.
    segment: usize,
    /// The ports at which SYNs are taken; none once nobody listens.
    ports: Vec<u16>,
    next: u64,
    tcbs: HashMap<ConnectionId, Tcb>,
    flows: HashMap<Flow, ConnectionId>,
    /// Ids grow, so the first is the oldest.
    half_open: BTreeSet<ConnectionId>,
    waiting: VecDeque<ConnectionId>,
    /// Those with something to do, in the order of their turns.
    queue: VecDeque<ConnectionId>,
    timers: BTreeSet<(Duration, ConnectionId)>,
    changed: BTreeSet<ConnectionId>,
    /// Bytes of buffers that are granted.
    reserved: usize,
}

impl Table {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limits: config.limits,
            segment: usize::from(config.mtu.get()).saturating_sub(HEADERS),
            ports: config.ports.clone(),
            next: 0,
            tcbs: HashMap::new(),
            flows: HashMap::new(),
            half_open: BTreeSet::new(),
            waiting: VecDeque::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
            reserved: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tcbs.len()
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

    /// Which connection a SYN is for: the one it repeats, or a new one that listens for just
    /// this SYN. `None` when it is to be refused.
    pub(super) fn syn(
        &mut self,
        flow: Flow,
        syn: &TcpRepr<'_>,
        now: Duration,
        statistics: &mut Statistics,
    ) -> Option<ConnectionId> {
        if let Some(id) = self.find(flow) {
            let tcb = self.tcbs.get(&id)?;
            let abandoned =
                matches!(tcb.phase, Phase::HalfOpen { .. }) && tcb.syn != syn.seq_number;
            if !abandoned {
                return Some(id);
            }
            // The guest has forgotten its first attempt, by a restart for instance.
            self.remove(id);
        }
        if !self.ports.contains(&flow.port) {
            return None;
        }
        if self.half_open.len() >= self.limits.half_open {
            self.displace(statistics);
        }
        let grant = match self.grant() {
            Some(grant) => grant,
            None if self.displace(statistics) => self.grant()?,
            None => {
                tracing::debug!(open = self.len(), "connection refused: too many");
                statistics.refused += 1;
                return None;
            }
        };
        // As large as the guest's are, which may have a card for less.
        let segment = syn.max_seg_size.map_or(DEFAULT_SEGMENT, usize::from).min(self.segment);
        let tcb = Tcb::listen(flow, syn.seq_number, grant, segment, now).ok()?;
        let id = ConnectionId(self.next);
        self.next += 1;
        self.reserved += grant.total();
        self.tcbs.insert(id, tcb);
        self.flows.insert(flow, id);
        self.half_open.insert(id);
        Some(id)
    }

    fn grant(&self) -> Option<budget::Grant> {
        budget::grant(&self.limits, self.len(), self.reserved)
    }

    /// Makes room for a new handshake by giving up the oldest: whoever means to complete one
    /// does so at once, so a flood of SYNs displaces its own.
    fn displace(&mut self, statistics: &mut Statistics) -> bool {
        let Some(oldest) = self.half_open.first().copied() else {
            return false;
        };
        self.remove(oldest);
        statistics.displaced += 1;
        true
    }

    fn remove(&mut self, id: ConnectionId) {
        let Some(tcb) = self.tcbs.remove(&id) else {
            return;
        };
        self.forget_flow(id, tcb.flow);
        self.half_open.remove(&id);
        self.changed.remove(&id);
        if let Some(due) = tcb.due {
            self.timers.remove(&(due, id));
        }
        self.reserved -= tcb.grant.total();
    }

    /// The ports are free for another connection.
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

    /// Gives a turn to every connection whose time has come.
    pub(super) fn enqueue_due(&mut self, now: Duration) {
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

    /// Whose turn it is.
    pub(super) fn dequeue(&mut self) -> Option<ConnectionId> {
        let id = self.queue.pop_front()?;
        if let Some(tcb) = self.tcbs.get_mut(&id) {
            tcb.queued = false;
        }
        Some(id)
    }

    /// Takes note of a turn: `settled` if there is nothing more to send now, `next` as the
    /// time at which TCP has something to do again.
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
                self.half_open.remove(&id);
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
        self.timers.first().map(|&(due, _)| due)
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
        while let Some(id) = self.waiting.pop_front() {
            self.reset(id, Duration::ZERO);
        }
    }

    /// Ends a connection that nobody will ever hold.
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
