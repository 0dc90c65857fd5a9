//! The decisions of the gateway, without I/O and without a clock.
//!
//! ```text
//!   begin ── denied, or above a limit ──► Denied
//!     │
//!     ▼
//!   Dialling ── connected: the policy may have changed ── denied ──► end
//!     │                                                               ▲
//!     ▼                                                               │
//!   Open ──────────────── set_policy: no longer allowed ──────────────┘
//! ```
//!
//! It owns the policy, the names and their addresses, and the list of what is open, which is
//! limited. The shell around it ([`shared`](crate::shared)) has one lock for all of them, so that
//! nothing passes between a new policy and the cut of what it forbids.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use metaservice_egress::audit::Reason;
use metaservice_egress::dns::{self, Answer, InvalidQuery, Kind, Query};
use metaservice_egress::{
    Attempt, DomainName, NameTable, Peer, Policy, Rule, Target, Transport, Verdict,
};

use crate::config::Limits;
use crate::inspect::Inspection;
use crate::rate::Rate;

/// A connection or an association that was allowed to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId(u64);

/// What may begin.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) id: FlowId,
    pub(crate) attempt: Attempt,
    pub(crate) rule: Rule,
    /// The policy that allowed it.
    pub(crate) policy: Arc<Policy>,
}

/// What may not, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) target: Target,
    pub(crate) rule: Option<Rule>,
    pub(crate) reason: Reason,
}

/// A question that is denied, and its answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeniedName {
    pub(crate) answer: Vec<u8>,
    /// `None`: no rule can have the name.
    pub(crate) name: Option<DomainName>,
    pub(crate) rule: Option<Rule>,
    pub(crate) reason: Reason,
}

/// What becomes of a question for a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// This is the answer.
    Answered(Vec<u8>),
    /// The question is recorded as denied.
    Denied(Box<DeniedName>),
    /// This is the answer. There are too many questions to record each.
    TooMany(Vec<u8>),
    /// There is no answer.
    Ignored,
}

#[derive(Debug)]
struct Flow {
    attempt: Attempt,
    /// The address that stands for the name, if it is one.
    address: Option<Ipv4Addr>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dialling,
    /// Connected to this peer (`None`: by a proxy), with this check of what the guest sends.
    Open(Option<Peer>, Inspection),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: Arc<Policy>,
    limits: Limits,
    names: NameTable,
    queries: Rate,
    next: u64,
    flows: HashMap<FlowId, Flow>,
    /// How many connections there are, how many of them are being dialled, and how many
    /// associations.
    connections: usize,
    dialling: usize,
    associations: usize,
    per_name: HashMap<Ipv4Addr, usize>,
}

impl Gate {
    pub(crate) fn new(
        policy: Policy,
        limits: Limits,
        names: Vec<(Ipv4Addr, DomainName)>,
        now: Instant,
    ) -> Self {
        Self {
            policy: Arc::new(policy),
            limits,
            names: NameTable::restore(limits.names, names, now),
            queries: Rate::new(limits.queries),
            next: 0,
            flows: HashMap::new(),
            connections: 0,
            dialling: 0,
            associations: 0,
            per_name: HashMap::new(),
        }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    pub(crate) fn names(&self) -> Vec<(Ipv4Addr, DomainName)> {
        self.names.entries()
    }

    /// What an address stands for. `None`: for a name that it does not have. No rule is about such
    /// an address, whatever the rule contains.
    pub(crate) fn target(&self, address: Ipv4Addr) -> Option<Target> {
        match self.names.name(address) {
            Some(name) => Some(Target::from(name.clone())),
            None => (!NameTable::contains(address)).then_some(Target::Address(address.into())),
        }
    }

    /// Decides whether the guest may begin a connection or an association.
    pub(crate) fn begin(
        &mut self,
        destination: SocketAddrV4,
        transport: Transport,
        now: Instant,
    ) -> Result<Begun, Box<Denied>> {
        let address = *destination.ip();
        let known = self.target(address);
        let named = self.names.name(address).is_some();
        let target = known.clone().unwrap_or(Target::Address(address.into()));
        let attempt = Attempt { target, port: destination.port(), transport };
        let denied = |rule: Option<&Rule>, reason| {
            let target = attempt.target.clone();
            Err(Box::new(Denied { target, rule: rule.cloned(), reason }))
        };
        if known.is_none() {
            return denied(None, Reason::NoRule);
        }
        let policy = self.policy();
        let rule = match policy.decide(&attempt) {
            Verdict::Allowed(rule) => rule,
            Verdict::DeniedBy(rule) => return denied(Some(rule), Reason::Rule),
            verdict => return denied(None, Reason::of(&verdict)),
        };
        let of_name = self.per_name.get(&address).copied().unwrap_or(0);
        let full = match transport {
            Transport::Tcp => {
                self.connections >= self.limits.connections
                    || self.dialling >= self.limits.dialling
                    || named && of_name >= self.limits.per_name
            }
            Transport::Udp => self.associations >= self.limits.associations,
        };
        if full {
            return denied(Some(rule), Reason::Limit);
        }
        let rule = rule.clone();
        let id = self.add(attempt.clone(), named.then_some(address), now);
        Ok(Begun { id, attempt, rule, policy })
    }

    fn add(&mut self, attempt: Attempt, address: Option<Ipv4Addr>, now: Instant) -> FlowId {
        let id = FlowId(self.next);
        self.next += 1;
        if let Some(address) = address {
            self.names.connect(address, now);
        }
        match attempt.transport {
            Transport::Tcp => {
                self.connections += 1;
                self.dialling += 1;
                if let Some(address) = address {
                    *self.per_name.entry(address).or_default() += 1;
                }
            }
            Transport::Udp => self.associations += 1,
        }
        self.flows.insert(id, Flow { attempt, address, phase: Phase::Dialling });
        id
    }

    /// Decides again about what was dialled, because the policy may have changed meanwhile.
    /// Returns how to check what the guest sends.
    pub(crate) fn connected(
        &mut self,
        id: FlowId,
        peer: Option<Peer>,
    ) -> Result<Inspection, Reason> {
        let Some(flow) = self.flows.get_mut(&id) else { return Err(Reason::Policy) };
        let inspection =
            allows_peer(&self.policy, &flow.attempt, peer).map_err(|_| Reason::Policy)?;
        if flow.phase == Phase::Dialling && flow.attempt.transport == Transport::Tcp {
            self.dialling -= 1;
        }
        flow.phase = Phase::Open(peer, inspection);
        Ok(inspection)
    }

    /// Ends a connection or an association.
    pub(crate) fn end(&mut self, id: FlowId, now: Instant) {
        let Some(flow) = self.flows.remove(&id) else { return };
        if let Some(address) = flow.address {
            self.names.disconnect(address, now);
        }
        match flow.attempt.transport {
            Transport::Udp => self.associations -= 1,
            Transport::Tcp => {
                self.connections -= 1;
                self.dialling -= usize::from(flow.phase == Phase::Dialling);
                if let Some(address) = flow.address
                    && let Some(count) = self.per_name.get_mut(&address)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.per_name.remove(&address);
                    }
                }
            }
        }
    }

    /// Changes the policy. Returns what is open and no longer allowed, in the order in which it
    /// began. So is a connection whose bytes were not checked as the new policy demands.
    pub(crate) fn set_policy(&mut self, policy: Policy) -> Vec<FlowId> {
        self.policy = Arc::new(policy);
        let cut = |flow: &Flow| match flow.phase {
            Phase::Dialling => !self.policy.decide(&flow.attempt).is_allowed(),
            Phase::Open(peer, before) => allows_peer(&self.policy, &flow.attempt, peer)
                .map_or(true, |inspection| !before.covers(inspection)),
        };
        let mut cut: Vec<_> =
            self.flows.iter().filter(|(_, flow)| cut(flow)).map(|(id, _)| *id).collect();
        cut.sort_unstable();
        cut
    }

    /// Answers a question.
    pub(crate) fn ask(&mut self, bytes: &[u8], now: Instant) -> Asked {
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(InvalidQuery::Malformed) => {
                return dns::malformed(bytes).map_or(Asked::Ignored, Asked::Answered);
            }
            Err(_) => return Asked::Ignored,
        };
        if !self.queries.take(now) {
            return Asked::TooMany(query.answer(Answer::Failed));
        }
        let denied = |answer, name: Option<&DomainName>, rule: Option<&Rule>, reason| {
            let (name, rule) = (name.cloned(), rule.cloned());
            Asked::Denied(Box::new(DeniedName { answer, name, rule, reason }))
        };
        // A name that no rule can have, such as the root: there is nothing to allow.
        let Some(name) = query.name() else {
            return denied(query.answer(Answer::Refused), None, None, Reason::NoRule);
        };
        let verdict = self.policy.decide_name(name);
        if !verdict.is_allowed() {
            // Clients look for services of a name before they use it. None of them needs a rule.
            let subject = name.subject();
            if subject.is_some_and(|subject| self.policy.decide_name(&subject).is_allowed()) {
                return Asked::Answered(query.answer(Answer::Nothing));
            }
            let rule = match verdict {
                Verdict::DeniedBy(rule) => Some(rule),
                _ => None,
            };
            return denied(query.answer(Answer::Refused), Some(name), rule, Reason::of(&verdict));
        }
        if query.kind() != Kind::A {
            return Asked::Answered(query.answer(Answer::Nothing));
        }
        match self.names.address(name, now) {
            Some(address) => Asked::Answered(query.answer(Answer::Address(address))),
            None => denied(query.answer(Answer::Failed), Some(name), None, Reason::Limit),
        }
    }
}

/// Decides about a peer that an attempt leads to (`None`: a proxy knows it), and how to check what
/// the guest sends.
pub(crate) fn allows_peer(
    policy: &Policy,
    attempt: &Attempt,
    peer: Option<Peer>,
) -> Result<Inspection, Reason> {
    let verdict = match peer {
        Some(peer) => policy.decide_peer(attempt, peer),
        None => policy.decide(attempt),
    };
    match verdict {
        Verdict::Allowed(rule) => Ok(Inspection::of(rule, attempt)),
        verdict => Err(Reason::of(&verdict)),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
