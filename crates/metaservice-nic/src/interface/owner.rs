//! What the owner of the [`Gateway`](crate::Gateway) takes, and what it makes of attempts.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::{
    AttemptProgress, Interface,
    attempts::Place,
    device::Link,
    flow::{AttemptId, Flow},
};
use crate::error::ConnectError;
use crate::network::{Datagram, EchoRequest, Rejected, Unreachable};

impl Interface {
    /// The next attempt of the guest to connect through the card, with its two ends.
    pub fn attempt(&mut self) -> Option<(AttemptId, SocketAddrV4, SocketAddrV4)> {
        let (id, flow) = self.table.attempts.take_next()?;
        Some((id, flow.source(), flow.destination()))
    }

    /// Whether [`attempt`](Self::attempt) has one.
    #[must_use]
    pub fn has_attempts(&self) -> bool {
        self.table.attempts.has_new()
    }

    /// Answers the SYN of an attempt. Does nothing if the attempt is gone.
    pub fn accept_attempt(&mut self, id: AttemptId, now: Duration) {
        let link = Link { mtu: self.mtu, checksums: &self.checksums, neighbours: &self.neighbours };
        if let Some(answer) = self.table.accept_attempt(id, now, link) {
            self.post_segment(answer);
        }
    }

    /// Refuses an attempt, by a reset or by an ICMP error. An attempt that is established is reset,
    /// and one to the guest ends.
    pub fn refuse(&mut self, id: AttemptId, reason: Option<Unreachable>) {
        match self.table.attempts.remove(id) {
            Some(Place::Asked(flow) | Place::Handshake(flow)) => {
                if let Some((sequence, packet)) = self.table.abandon(flow) {
                    self.post_refusal(flow, sequence, &packet, reason);
                }
            }
            Some(
                Place::Opening(connection)
                | Place::Calling(connection)
                | Place::Established(connection),
            ) => self.table.reset(connection, Duration::ZERO),
            Some(Place::Refused) | None => {}
        }
    }

    /// Begins a connection to a port of the guest. The guest sees that it comes from `source`. If
    /// its port is 0, the card chooses one. The attempt ends half a minute later at the latest.
    ///
    /// # Errors
    /// [`ConnectError`] if the card cannot begin it. What the guest says comes by
    /// [`attempt_progress`](Self::attempt_progress).
    pub fn connect(
        &mut self,
        port: u16,
        source: SocketAddrV4,
        now: Duration,
    ) -> Result<AttemptId, ConnectError> {
        let router = self.router.as_ref().filter(|router| router.open);
        let network = router.ok_or(ConnectError::Gone)?.network;
        if port == 0 || !self.addresses.is_routed(*source.ip()) {
            return Err(ConnectError::Address);
        }
        let mut flow = Flow {
            peer: network.guest,
            peer_port: port,
            address: *source.ip(),
            port: source.port(),
        };
        if flow.port == 0 {
            flow.port = self.table.free_port(flow).ok_or(ConnectError::InUse)?;
        }
        self.table.call(flow, now, self.stack.context())
    }

    /// How far an attempt is. Once it is established or refused, it has ended, and the next answer
    /// is [`AttemptProgress::Gone`].
    pub fn attempt_progress(&mut self, id: AttemptId) -> AttemptProgress {
        let progress = match self.table.attempts.place(id) {
            Some(Place::Established(connection)) => AttemptProgress::Established(connection),
            Some(Place::Refused) => AttemptProgress::Refused,
            Some(_) => return AttemptProgress::Pending,
            None => return AttemptProgress::Gone,
        };
        self.table.attempts.remove(id);
        progress
    }

    /// The attempts that may have progressed since the last call.
    pub fn take_attempt_changes(&mut self) -> impl Iterator<Item = AttemptId> + use<> {
        self.table.attempts.take_changes()
    }

    /// The next datagram of the guest.
    pub fn receive_datagram(&mut self) -> Option<Datagram> {
        self.router.as_mut()?.datagrams.pop()
    }

    /// Whether [`receive_datagram`](Self::receive_datagram) has one.
    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.router.as_ref().is_some_and(|router| !router.datagrams.is_empty())
    }

    /// The next echo request of the guest to an address behind the card.
    pub fn receive_echo(&mut self) -> Option<EchoRequest> {
        self.router.as_mut()?.echoes.pop()
    }

    /// Whether [`receive_echo`](Self::receive_echo) has one.
    #[must_use]
    pub fn has_echoes(&self) -> bool {
        self.router.as_ref().is_some_and(|router| !router.echoes.is_empty())
    }

    /// The next thing of the guest that was rejected.
    pub fn receive_rejected(&mut self) -> Option<Rejected> {
        let router = self.router.as_mut()?;
        let rejected = router.rejected.pop()?;
        Some(Rejected { missed: std::mem::take(&mut router.missed), ..rejected })
    }

    /// Whether [`receive_rejected`](Self::receive_rejected) has one.
    #[must_use]
    pub fn has_rejected(&self) -> bool {
        self.router.as_ref().is_some_and(|router| !router.rejected.is_empty())
    }

    /// Refuses each attempt, now and from now on, and drops datagrams and echo requests.
    /// Established connections stay.
    pub fn stop_routing(&mut self) {
        if let Some(router) = &mut self.router {
            router.open = false;
            router.datagrams.clear();
            router.echoes.clear();
            router.rejected.clear();
        }
        for id in self.table.asked() {
            self.refuse(id, None);
        }
    }

    /// Whether the guest's attempts have an owner.
    pub(super) fn routes(&self) -> bool {
        self.router.as_ref().is_some_and(|router| router.open)
    }
}
