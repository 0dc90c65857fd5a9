//! Echo requests of the guest (ping), to what it may reach by other means.
//!
//! The host sends a request of its own, and the guest gets its answer when the host has one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metaservice_egress::audit::{Decision, Protocol, Reason, Record};
use metaservice_egress::{Peer, Policy, Target, Verdict};
use metaservice_nic::{Echo, Unreachable};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::dial::resolve;
use crate::eyeballs;
use crate::shared::{Shared, describe, new_record};

/// The most requests that wait for an answer.
pub(crate) const MAX_ECHOES: usize = 64;
/// How long the host waits for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Answers a request, with its place among them, and records it.
pub(crate) async fn serve(shared: Arc<Shared>, echo: Echo, _place: OwnedSemaphorePermit) {
    let begun = Instant::now();
    let mut record = new_record(Protocol::Icmp);
    let request = echo.request();
    let size = request.payload.len();
    let (policy, target) = shared.target(request.destination);
    record.address = Some(request.destination.into());
    let result = match target {
        Some(target) => pass(&shared, &policy, &target, size, &mut record).await,
        None => Err(Reason::NoRule),
    };
    record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    (record.verdict, record.reason) = match result {
        Ok(()) => (Decision::Allowed, Reason::Ended),
        Err(reason @ (Reason::Unresolved | Reason::Unreachable)) => (Decision::Allowed, reason),
        Err(reason) => (Decision::Denied, reason),
    };
    match (result, record.verdict) {
        (Ok(()), _) => echo.reply(),
        (Err(_), Decision::Allowed) => echo.unreachable(Unreachable::Host),
        (Err(_), Decision::Denied) => echo.unreachable(Unreachable::Prohibited),
    }
    shared.log.record(record);
}

/// Sends a request of this size, if it is allowed, and waits for the answer.
async fn pass(
    shared: &Shared,
    policy: &Policy,
    target: &Target,
    size: usize,
    record: &mut Record,
) -> Result<(), Reason> {
    describe(record, target);
    let verdict = policy.reaches(target);
    let (Verdict::Allowed(rule) | Verdict::DeniedBy(rule)) = verdict else {
        return Err(Reason::of(&verdict));
    };
    record.rule = Some(rule.clone());
    if !verdict.is_allowed() {
        return Err(Reason::Rule);
    }
    let found = timeout(shared.limits.dial, peer(shared, policy, target)).await;
    let address = found.unwrap_or(Err(Reason::Unresolved))?;
    record.address = Some(address);
    record.sent = size as u64;
    match timeout(ANSWER, shared.uplink.ping(address, size)).await {
        Ok(Ok(())) => {
            record.received = size as u64;
            Ok(())
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "an echo request was not sent");
            Err(Reason::Unreachable)
        }
        Err(_) => Err(Reason::Unreachable),
    }
}

/// The first address of a target that the host may ask.
async fn peer(shared: &Shared, policy: &Policy, target: &Target) -> Result<IpAddr, Reason> {
    let addresses = match target {
        Target::Host => return Ok(std::net::Ipv4Addr::LOCALHOST.into()),
        Target::Address(address) => vec![*address],
        Target::Name(name) => resolve(shared, name).await.map_err(|_| Reason::Unresolved)?,
    };
    let mut refused = Reason::Unresolved;
    for address in eyeballs::order(addresses, |address| *address) {
        let peer = Peer { address, own: shared.uplink.is_own(address) };
        let verdict = policy.reaches_peer(target, peer);
        if verdict.is_allowed() {
            return Ok(address);
        }
        refused = Reason::of(&verdict);
    }
    Err(refused)
}
