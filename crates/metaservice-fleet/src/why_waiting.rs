//! Why a job waits. No I/O, no clock.

use std::collections::BTreeMap;

use crate::requirement::{Features, Requirement};
use crate::state::{JobState, Phase, ServerTime};
use crate::step::{LostCause, Renewal, WorkerState};
use crate::tenants::TenantUse;
use crate::view::LEASE;

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its client does not want it to start before this time.
    NotBefore(ServerTime),
    /// Its last attempt was lost. It pauses before the next one.
    Pause {
        /// Until when.
        until: ServerTime,
        /// Why the attempt was lost.
        cause: LostCause,
        /// What the worker said of it.
        message: String,
    },
    /// Its deadline has passed. The next worker ends it.
    Late,
    /// The queue has no worker with a lease.
    NoWorker,
    /// All workers end.
    Draining,
    /// No worker has all of this.
    Needs(Vec<Requirement>),
    /// Its machine needs more memory than each worker that has the rest may use in all.
    TooLarge {
        /// What its machine needs, in bytes.
        memory: u64,
        /// The most that one of these workers may use, in bytes.
        largest: u64,
    },
    /// As many jobs of its tenant run as may.
    Tenant {
        /// How many may run.
        limit: u32,
    },
    /// All slots of the workers that could run it are taken.
    Busy,
    /// The workers that could run it have not enough memory left.
    Memory,
    /// The disks of the workers that could run it are nearly full.
    Disk,
}

impl Reason {
    /// Its word in lists and events.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotBefore(_) => "not-before",
            Self::Pause { .. } => "pause",
            Self::Late => "late",
            Self::NoWorker => "no-worker",
            Self::Draining => "draining",
            Self::Needs(_) => "needs",
            Self::TooLarge { .. } => "too-large",
            Self::Tenant { .. } => "tenant",
            Self::Busy => "busy",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// The workers of a queue that have said what they are, as a reader knows them.
#[derive(Debug, Clone, Default)]
pub struct Crew(BTreeMap<String, (ServerTime, Renewal)>);

impl Crew {
    /// Takes a renewal, which the server stored at this time.
    pub fn renewed(&mut self, stored: ServerTime, renewal: Renewal) {
        let name = renewal.worker.to_string();
        match renewal.state {
            WorkerState::Gone => drop(self.0.remove(&name)),
            _ => drop(self.0.insert(name, (stored, renewal))),
        }
    }

    /// The workers whose leases have not ended at this time of the server.
    fn alive(&self, time: ServerTime) -> impl Iterator<Item = &Renewal> {
        let alive = self.0.values().filter(move |(stored, _)| time < lease_end(*stored));
        alive.map(|(_, renewal)| renewal)
    }

    /// When the next lease ends, if nothing arrives.
    #[must_use]
    pub fn next_end(&self, time: ServerTime) -> Option<ServerTime> {
        self.0.values().map(|(stored, _)| lease_end(*stored)).filter(|end| time < *end).min()
    }
}

/// When a lease ends that was renewed then.
fn lease_end(stored: ServerTime) -> ServerTime {
    stored.saturating_add(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
}

/// Why this job waits, at this time of the server. `None`: it does not wait, a worker is about to
/// take it, or this version does not know.
#[must_use]
pub fn why(job: &JobState, crew: &Crew, tenant: TenantUse, time: ServerTime) -> Option<Reason> {
    if !matches!(job.phase, Phase::Waiting { .. }) || job.is_of_later_version() {
        return None;
    }
    if job.request.deadline.is_some_and(|deadline| deadline < time) {
        return Some(Reason::Late);
    }
    if let Some(reason) = not_yet(job, time) {
        return Some(reason);
    }
    let alive: Vec<&Renewal> = crew.alive(time).collect();
    if alive.is_empty() {
        return Some(Reason::NoWorker);
    }
    let ready = alive.into_iter().filter(|worker| worker.state != WorkerState::Draining);
    let ready: Vec<&Renewal> = ready.collect();
    if ready.is_empty() {
        return Some(Reason::Draining);
    }
    let able: Vec<_> = ready.iter().filter(|worker| missing(job, worker).is_empty()).collect();
    if able.is_empty() {
        return Some(Reason::Needs(unmet(job, &ready)));
    }
    let memory = job.request.spec.machine.memory.0;
    let budget = |worker: &Renewal| worker.capacity.map_or(u64::MAX, |capacity| capacity.memory);
    let largest = able.iter().map(|worker| budget(worker)).max().unwrap_or_default();
    if largest < memory {
        return Some(Reason::TooLarge { memory, largest });
    }
    if let Some(limit) = tenant.limits.running.filter(|limit| tenant.running >= *limit) {
        return Some(Reason::Tenant { limit });
    }
    let fit = able.into_iter().filter(|worker| memory <= budget(worker));
    let mut free = fit.filter(|worker| worker.running < worker.slots).peekable();
    if free.peek().is_none() {
        return Some(Reason::Busy);
    }
    let words: Vec<_> = free.map(|worker| worker.reason.as_deref()).collect();
    let is_all = |word| words.iter().all(|reason| *reason == Some(word));
    match () {
        () if is_all("disk") => Some(Reason::Disk),
        () if words.iter().all(Option::is_some) => Some(Reason::Memory),
        () => None,
    }
}

/// Why it may not start yet, whatever the workers have.
fn not_yet(job: &JobState, time: ServerTime) -> Option<Reason> {
    if let Some(start) = job.request.not_before.filter(|start| time < *start) {
        return Some(Reason::NotBefore(start));
    }
    let until = job.earliest().filter(|earliest| time < *earliest)?;
    let (cause, message) = job.last_loss.clone()?;
    Some(Reason::Pause { until, cause, message })
}

/// What a job needs and this worker does not have. A worker of an earlier version does not say what
/// its host has: it may have enough.
fn missing<'a>(job: &'a JobState, worker: &Renewal) -> Vec<&'a Requirement> {
    let features = Features {
        labels: worker.labels.clone(),
        memory: worker.capacity.map_or(u64::MAX, |capacity| capacity.host_memory),
        processors: worker.capacity.map_or(u32::MAX, |capacity| capacity.processors),
    };
    job.needs().iter().filter(|need| !features.has(need)).collect()
}

/// What no worker has; if each is had by one, what no worker has together.
fn unmet(job: &JobState, workers: &[&Renewal]) -> Vec<Requirement> {
    let all: Vec<Vec<_>> = workers.iter().map(|worker| missing(job, worker)).collect();
    let needs = job.needs();
    let is_nowhere = |need: &&Requirement| all.iter().all(|missing| missing.contains(need));
    let nowhere: Vec<_> = needs.iter().filter(is_nowhere).cloned().collect();
    if nowhere.is_empty() { needs.to_vec() } else { nowhere }
}

/// When the reason may change, if nothing arrives.
#[must_use]
pub fn next_change(job: &JobState, crew: &Crew, time: ServerTime) -> Option<ServerTime> {
    let after_deadline = job.request.deadline.map(|deadline| deadline.saturating_add(1));
    let moments = [job.request.not_before, job.earliest(), after_deadline, crew.next_end(time)];
    moments.into_iter().flatten().filter(|moment| time < *moment).min()
}

#[cfg(test)]
mod tests;
