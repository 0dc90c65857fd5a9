//! What the tasks of a gateway share: the gate, the log and the way out.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use metaservice_egress::audit::{Decision, Protocol, Reason, Record, Totals};
use metaservice_egress::{DomainName, Peer, Policy, Target, Transport};
use metaservice_nic::{DropReason, Rejected};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::Limits;
use crate::gate::{Asked, Begun, FlowId, Gate};
use crate::inspect::Inspection;
use crate::log::{Follower, Log};
use crate::proxy::Proxy;
use crate::uplink::Uplink;

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
    pub(crate) proxy: Proxy,
    pub(crate) uplink: Arc<dyn Uplink>,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    /// What is open, and how it is cut.
    cuts: HashMap<FlowId, oneshot::Sender<()>>,
}

impl Shared {
    pub(crate) fn new(
        gate: Gate,
        log: Log,
        limits: Limits,
        proxy: Proxy,
        uplink: Arc<dyn Uplink>,
    ) -> Self {
        let state = Mutex::new(State { gate, cuts: HashMap::new() });
        Self { state, log, limits, proxy, uplink }
    }

    /// Begins a connection or an association. What is denied is recorded.
    pub(crate) fn begin(
        self: &Arc<Self>,
        destination: SocketAddrV4,
        transport: Transport,
    ) -> Option<Ticket> {
        let begun = Instant::now();
        let mut record = new_record(transport.into());
        record.port = Some(destination.port());
        let mut state = self.lock();
        match state.gate.begin(destination, transport, begun.into_std()) {
            Ok(allowed) => {
                let (cut, was_cut) = oneshot::channel();
                state.cuts.insert(allowed.id, cut);
                drop(state);
                describe(&mut record, &allowed.attempt.target);
                record.rule = Some(allowed.rule.clone());
                record.verdict = Decision::Allowed;
                record.reason = Reason::Ended;
                let shared = Arc::clone(self);
                Some(Ticket { shared, allowed, record, begun, was_cut: Some(was_cut) })
            }
            Err(denied) => {
                drop(state);
                describe(&mut record, &denied.target);
                record.rule = denied.rule;
                record.reason = denied.reason;
                self.log.record(record);
                None
            }
        }
    }

    /// Records a connection to the resolver that is one too many.
    pub(crate) fn refuse_resolver(&self, destination: SocketAddrV4) {
        let mut record = new_record(Protocol::Tcp);
        (record.address, record.port) =
            (Some((*destination.ip()).into()), Some(destination.port()));
        record.reason = Reason::Limit;
        self.log.record(record);
    }

    /// Answers a question for a name. What is denied is recorded.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let asked = self.lock().gate.ask(bytes, Instant::now().into_std());
        match asked {
            Asked::Answered(answer) => Some(answer),
            Asked::Denied(denied) => {
                let mut record = new_record(Protocol::Dns);
                record.name = denied.name.map(|name| name.to_string());
                (record.rule, record.reason) = (denied.rule, denied.reason);
                self.log.record(record);
                Some(denied.answer)
            }
            Asked::TooMany(answer) => {
                self.log.count_unrecorded();
                Some(answer)
            }
            Asked::Ignored => None,
        }
    }

    /// Records what the card has rejected.
    pub(crate) fn reject(&self, rejected: Rejected) {
        let to = rejected.destination;
        let mut record = new_record(match rejected.protocol {
            metaservice_nic::Protocol::Tcp => Protocol::Tcp,
            metaservice_nic::Protocol::Udp => Protocol::Udp,
            _ => Protocol::Icmp,
        });
        record.port = (record.protocol != Protocol::Icmp).then_some(to.port());
        record.reason = match rejected.reason {
            DropReason::NotTaken => Reason::Limit,
            _ => Reason::Packet,
        };
        let target = self.lock().gate.target(*to.ip());
        describe(&mut record, &target.unwrap_or(Target::Address((*to.ip()).into())));
        self.log.record(record);
        self.log.count_all_unrecorded(rejected.missed);
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.lock().gate.policy()
    }

    /// The policy, and what an address stands for.
    pub(crate) fn target(&self, address: Ipv4Addr) -> (Arc<Policy>, Option<Target>) {
        let state = self.lock();
        (state.gate.policy(), state.gate.target(address))
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        let mut state = self.lock();
        for id in state.gate.set_policy(policy) {
            // Its task may have just ended.
            let _ = state.cuts.remove(&id).map(|cut| cut.send(()));
        }
    }

    pub(crate) fn names(&self) -> Vec<(Ipv4Addr, DomainName)> {
        self.lock().gate.names()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.log.totals()
    }

    pub(crate) fn follow(&self) -> Option<Follower> {
        self.log.follow()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn new_record(protocol: Protocol) -> Record {
    let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Record::new(protocol, u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn describe(record: &mut Record, target: &Target) {
    match target {
        Target::Name(name) => record.name = Some(name.to_string()),
        Target::Address(address) => record.address = Some(*address),
        Target::Host => record.name = Some("host".to_owned()),
    }
}

/// A connection or an association that was allowed to begin. Dropping it ends and records it.
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    pub(crate) allowed: Begun,
    pub(crate) record: Record,
    begun: Instant,
    was_cut: Option<oneshot::Receiver<()>>,
}

impl Ticket {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Completes when the policy no longer allows it. Take it once.
    pub(crate) fn take_cut(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let was_cut = self.was_cut.take();
        async move {
            let cut = match was_cut {
                Some(was_cut) => was_cut.await.is_ok(),
                None => false,
            };
            // The sender is dropped without a cut only with the ticket.
            if !cut {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Notes the peer, and decides again.
    pub(crate) fn connected(&mut self, peer: Option<Peer>) -> Result<Inspection, Reason> {
        self.record.address = peer.map(|peer| peer.address).or(self.record.address);
        self.shared.lock().gate.connected(self.allowed.id, peer)
    }

    /// Notes that it was denied after all.
    pub(crate) fn deny(&mut self, reason: Reason) {
        self.record.verdict = Decision::Denied;
        self.record.reason = reason;
    }

    /// Notes how it has ended.
    pub(crate) fn end(&mut self, reason: Reason) {
        self.record.reason = reason;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.gate.end(self.allowed.id, now.into_std());
        state.cuts.remove(&self.allowed.id);
        drop(state);
        let mut record = std::mem::replace(&mut self.record, Record::new(Protocol::Tcp, 0));
        let duration = now.saturating_duration_since(self.begun).as_millis();
        record.duration_ms = u64::try_from(duration).unwrap_or(u64::MAX);
        self.shared.log.record(record);
    }
}
