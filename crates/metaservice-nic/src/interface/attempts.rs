//! Attempts to connect through the card, from the SYN to an owner: of the guest, and of the host to
//! the guest.
//!
//! ```text
//!             take_next            accepted               established
//!   SYN ─► New ────────► Asked ───────────► Handshake ─────────────────► Established ─► owner
//!           │              │ refused            │ reset, too old, displaced
//!           └──────────────┴────────────────────┴────────► gone
//!
//!   call ─► Calling ─► Established or Refused ─► owner
//! ```
//!
//! Owns where each attempt is. The table of connections owns the handshakes and connections.

use std::collections::{BTreeSet, HashMap};

use super::flow::{AttemptId, ConnectionId, Flow};

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its SYN is not answered.
    Asked(Flow),
    /// Its SYN is answered, and the guest has not completed the handshake.
    Handshake(Flow),
    /// The connection has its buffers, and may not be established.
    Opening(ConnectionId),
    /// The host's SYN is sent, and the guest has not answered.
    Calling(ConnectionId),
    /// The guest has answered the host's SYN with a reset.
    Refused,
    /// The connection waits for its owner.
    Established(ConnectionId),
}

#[derive(Debug, Default)]
pub(super) struct Attempts {
    next: u64,
    places: HashMap<AttemptId, Place>,
    /// Those that no owner has taken.
    new: BTreeSet<AttemptId>,
    /// How many wait for the answer of the guest.
    calls: usize,
    changed: BTreeSet<AttemptId>,
}

impl Attempts {
    /// An attempt whose SYN came now.
    pub(super) fn add(&mut self, flow: Flow) -> AttemptId {
        let id = self.put(Place::Asked(flow));
        self.new.insert(id);
        id
    }

    /// An attempt of the host to connect to the guest.
    pub(super) fn call(&mut self, connection: ConnectionId) -> AttemptId {
        self.calls += 1;
        self.put(Place::Calling(connection))
    }

    /// How many attempts of the host wait for the guest's answer.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    fn put(&mut self, place: Place) -> AttemptId {
        let id = AttemptId(self.next);
        self.next += 1;
        self.places.insert(id, place);
        id
    }

    /// The oldest attempt of the guest that was not taken.
    pub(super) fn take_next(&mut self) -> Option<(AttemptId, Flow)> {
        let id = self.new.pop_first()?;
        match self.place(id) {
            Some(Place::Asked(flow)) => Some((id, flow)),
            _ => None,
        }
    }

    pub(super) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }

    pub(super) fn place(&self, id: AttemptId) -> Option<Place> {
        self.places.get(&id).copied()
    }

    pub(super) fn set(&mut self, id: AttemptId, place: Place) {
        if let Some(known) = self.places.get_mut(&id) {
            let before = std::mem::replace(known, place);
            self.left(before);
            self.changed.insert(id);
        }
    }

    /// Forgets an attempt that is gone, or that has its owner.
    pub(super) fn remove(&mut self, id: AttemptId) -> Option<Place> {
        let place = self.places.remove(&id)?;
        self.left(place);
        // No owner waits for one that was not taken.
        if !self.new.remove(&id) {
            self.changed.insert(id);
        }
        Some(place)
    }

    fn left(&mut self, place: Place) {
        self.calls -= usize::from(matches!(place, Place::Calling(_)));
    }

    /// The attempts that have changed since the last call.
    pub(super) fn take_changes(&mut self) -> impl Iterator<Item = AttemptId> + use<> {
        std::mem::take(&mut self.changed).into_iter()
    }
}
