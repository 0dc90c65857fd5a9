//! The limits of one kind of connections: those to the service, or those through the card.
//!
//! It owns their incomplete handshakes, and counts their buffers. Each kind has limits of its own:
//! a guest that uses up the connections through the card still reaches the service.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{
    budget::{self, Ceiling, Grant},
    flow::Flow,
    handshake::Handshake,
};

pub(super) struct Share {
    ceiling: Ceiling,
    half_open: usize,
    pub(super) handshakes: Handshakes,
    /// The connections with buffers.
    open: usize,
    /// The bytes of all granted buffers.
    reserved: usize,
}

impl Share {
    pub(super) fn new(ceiling: Ceiling, half_open: usize) -> Self {
        let handshakes = Handshakes::default();
        Self { ceiling, half_open: half_open.max(1), handshakes, open: 0, reserved: 0 }
    }

    /// Whether there is no room for another connection.
    pub(super) fn is_full(&self) -> bool {
        self.open >= self.ceiling.connections
    }

    /// The handshake that a new one displaces, if there is no room for both.
    pub(super) fn displaced(&self) -> Option<Flow> {
        if self.handshakes.len() < self.half_open { None } else { self.handshakes.oldest() }
    }

    /// The receive buffer for a new handshake.
    pub(super) fn receive(&self) -> usize {
        // If there is no memory now, there may be some when the handshake is complete.
        let wanted = self.reserved.saturating_add(self.handshakes.planned);
        budget::receive(&self.ceiling, self.open + self.handshakes.len(), wanted)
    }

    /// The buffers for a handshake that is complete, with a receive buffer of this size.
    pub(super) fn grant_to(&self, receive: usize) -> Option<Grant> {
        let planned = self.handshakes.planned.saturating_sub(budget::plan(receive));
        budget::grant(&self.ceiling, self.open, self.reserved, planned, receive)
    }

    /// The buffers for a connection without a handshake.
    pub(super) fn grant(&self) -> Option<Grant> {
        let planned = self.handshakes.planned;
        budget::grant(&self.ceiling, self.open, self.reserved, planned, self.receive())
    }

    /// The bytes of all granted buffers.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    pub(super) fn take(&mut self, grant: Grant) {
        self.open += 1;
        self.reserved += grant.total();
    }

    pub(super) fn give_back(&mut self, grant: Grant) {
        self.open -= 1;
        self.reserved -= grant.total();
    }
}

/// The incomplete handshakes, oldest first.
#[derive(Default)]
pub(super) struct Handshakes {
    next: u64,
    flows: HashMap<Flow, u64>,
    ages: BTreeMap<u64, Handshake>,
    /// The bytes of buffers that all of them may need.
    planned: usize,
}

impl Handshakes {
    pub(super) fn len(&self) -> usize {
        self.ages.len()
    }

    pub(super) fn flows(&self) -> Vec<Flow> {
        self.ages.values().map(|handshake| handshake.flow).collect()
    }

    pub(super) fn find(&self, flow: Flow) -> Option<&Handshake> {
        self.ages.get(self.flows.get(&flow)?)
    }

    pub(super) fn put(&mut self, handshake: Handshake) {
        self.planned += budget::plan(handshake.receive);
        self.flows.insert(handshake.flow, self.next);
        self.ages.insert(self.next, handshake);
        self.next += 1;
    }

    pub(super) fn take(&mut self, flow: Flow) -> Option<Handshake> {
        let taken = self.flows.remove(&flow).and_then(|age| self.ages.remove(&age))?;
        self.planned -= budget::plan(taken.receive);
        Some(taken)
    }

    fn oldest(&self) -> Option<Flow> {
        self.ages.first_key_value().map(|(_, oldest)| oldest.flow)
    }

    /// The oldest one, if its time is over.
    pub(super) fn expired(&self, now: Duration) -> Option<Flow> {
        if self.deadline()? <= now { self.oldest() } else { None }
    }

    /// The deadline of the oldest one. It is the first: each one has the same time.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ages.first_key_value().map(|(_, oldest)| oldest.deadline)
    }
}
