//! Connections of the host to ports of the guest, until the guest answers.

use std::ops::RangeInclusive;
use std::time::Duration;

use smoltcp::iface;

use super::{
    flow::{AttemptId, Flow},
    table::Table,
    tcb::Tcb,
};
use crate::error::ConnectError;

/// The ports for connections to the guest (RFC 6335, section 6).
const EPHEMERAL: RangeInclusive<u16> = 49152..=65535;

impl Table {
    /// Begins a connection to the guest, whose local end has this flow.
    pub(super) fn call(
        &mut self,
        flow: Flow,
        now: Duration,
        context: &mut iface::Context,
    ) -> Result<AttemptId, ConnectError> {
        if self.find(flow).is_some() || self.routed.handshakes.find(flow).is_some() {
            return Err(ConnectError::InUse);
        }
        if self.attempts.calls() >= self.opens {
            return Err(ConnectError::Limit);
        }
        let grant = self.routed.grant().ok_or(ConnectError::Limit)?;
        let buffers = (grant, self.spares.take(grant));
        let tcb = Tcb::call(flow, buffers, self.segment, now, context);
        let mut tcb = tcb.map_err(|_| ConnectError::Address)?;
        let id = self.next_id();
        let attempt = self.attempts.call(id);
        tcb.attempt = Some(attempt);
        self.insert(id, tcb);
        self.enqueue(id);
        Ok(attempt)
    }

    /// Ends a connection to the guest that waits for its answer. Returns whether there is one.
    pub(super) fn refuse_call(&mut self, flow: Flow) -> bool {
        let Some(id) = self.find(flow) else { return false };
        let Some(tcb) = self.get_mut(id).filter(|tcb| tcb.calls()) else { return false };
        tcb.reset = true;
        self.remove(id);
        true
    }

    /// A free port of this address for a connection to the guest.
    pub(super) fn free_port(&mut self, flow: Flow) -> Option<u16> {
        let first = self.seed();
        let ports = EPHEMERAL.end() - EPHEMERAL.start() + 1;
        let offset = u16::try_from(first % u64::from(ports)).unwrap_or(0);
        (0..ports).map(|n| EPHEMERAL.start() + (offset + n) % ports).find(|port| {
            let flow = Flow { port: *port, ..flow };
            self.find(flow).is_none() && self.routed.handshakes.find(flow).is_none()
        })
    }
}
