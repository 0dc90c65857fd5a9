//! All jobs and workers of a queue: who runs next, and who is lost. No I/O, no clock.
//!
//! Times are durations of the reader's own monotonic clock, from any start. A lease is measured by
//! the renewals that arrive, so the clocks of workers need not agree. A reader judges others only
//! while its own renewals come back from the server: one that was cut off begins anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::name::{JobId, RunId, Tenant, WorkerName};
use crate::request::Priority;
use crate::requirement::Features;
use crate::state::{JobState, Phase, ServerTime, Stored};
use crate::step::{Change, LostCause, Renewal, WorkerState};
use crate::tenants::{TenantLimits, TenantUse};

mod clock;
mod tenants;

use self::clock::Clock;
use self::tenants::Tenants;

/// A worker that has renewed nothing for so long is lost.
pub const LEASE: Duration = Duration::from_secs(15);

/// A worker renews its lease so often.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// A worker whose renewal was confirmed by no server for so long ends its machines. It is shorter
/// than [`LEASE`] by the time that killing takes.
pub const SELF_STOP: Duration = Duration::from_secs(12);

/// A reader whose own renewals stay away for so long cannot tell whether others are lost.
const BLIND: Duration = Duration::from_secs(7);

/// All that a reader knows of a queue.
#[derive(Debug, Default)]
pub struct View {
    jobs: HashMap<JobId, JobState>,
    waiting: BTreeMap<Tenant, BTreeSet<Place>>,
    running: BTreeMap<JobId, RunId>,
    tenants: Tenants,
    deadlines: BTreeSet<(ServerTime, JobId)>,
    /// The waiting jobs that may not start before a time.
    starts: BTreeSet<(ServerTime, JobId)>,
    tried: HashMap<JobId, u32>,
    leases: Leases,
    keeps_ended: bool,
    /// The jobs whose submission this version cannot read. Only a client keeps them.
    unknown: BTreeSet<JobId>,
    clock: Clock,
}

/// The place of a job among those of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place(Reverse<Priority>, u64, JobId);

/// When each worker was heard last.
#[derive(Debug, Default)]
struct Leases {
    own: Option<RunId>,
    own_seen: Duration,
    seen: HashMap<RunId, Duration>,
    renewals: BTreeMap<WorkerName, Renewal>,
}

/// A worker that looks for a job.
#[derive(Debug, Clone, Copy)]
pub struct Seeker<'a> {
    /// Its features, for the requirements of jobs.
    pub features: &'a Features,
    /// The memory that the job may have, in bytes.
    pub memory: u64,
}

/// A step that a reader has to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The job.
    pub id: JobId,
    /// The number of the step.
    pub number: u32,
    /// The change.
    pub change: Change,
}

impl View {
    /// A view of the client: it keeps the jobs that have ended.
    #[must_use]
    pub fn of_client() -> Self {
        Self { keeps_ended: true, ..Self::default() }
    }

    /// The view of a worker, which judges others by their leases. It forgets ended jobs.
    #[must_use]
    pub fn of_worker(own: RunId, now: Duration) -> Self {
        let leases = Leases { own: Some(own), own_seen: now, ..Leases::default() };
        Self { leases, ..Self::default() }
    }

    /// Takes a step. `None`: one that this version cannot read.
    pub fn apply(&mut self, now: Duration, id: &JobId, at: Stored, change: Option<Change>) {
        self.clock.note(now, at.time);
        let Some(mut job) = self.jobs.remove(id) else {
            if let Some(job) = change.and_then(|change| JobState::submitted(at, change)) {
                self.insert(now, id.clone(), job);
            } else if at.number == 0 && self.keeps_ended {
                self.unknown.insert(id.clone());
            }
            return;
        };
        self.forget(id, &job);
        job.apply(at, change);
        self.insert(now, id.clone(), job);
    }

    fn insert(&mut self, now: Duration, id: JobId, job: JobState) {
        let request = &job.request;
        match &job.phase {
            _ if job.is_of_later_version() => drop(self.tried.remove(&id)),
            Phase::Waiting { place, .. } => {
                let place = Place(Reverse(request.priority), *place, id.clone());
                self.waiting.entry(request.tenant.clone()).or_default().insert(place);
                self.deadlines.extend(request.deadline.map(|deadline| (deadline, id.clone())));
                self.starts.extend(job.earliest().map(|earliest| (earliest, id.clone())));
            }
            Phase::Running { run, .. } => {
                self.tenants.begin(&request.tenant);
                self.running.insert(id.clone(), run.clone());
                self.leases.seen.entry(run.clone()).or_insert(now);
            }
            Phase::Ended { .. } => {
                self.tried.remove(&id);
                if !self.keeps_ended {
                    return;
                }
            }
        }
        self.jobs.insert(id, job);
    }

    /// Takes a job out of the indexes.
    fn forget(&mut self, id: &JobId, job: &JobState) {
        let request = &job.request;
        match &job.phase {
            _ if job.is_of_later_version() => {}
            Phase::Waiting { place, .. } => {
                if let Some(places) = self.waiting.get_mut(&request.tenant) {
                    places.remove(&Place(Reverse(request.priority), *place, id.clone()));
                    if places.is_empty() {
                        self.waiting.remove(&request.tenant);
                    }
                }
                if let Some(deadline) = request.deadline {
                    self.deadlines.remove(&(deadline, id.clone()));
                }
                if let Some(earliest) = job.earliest() {
                    self.starts.remove(&(earliest, id.clone()));
                }
            }
            Phase::Running { .. } => {
                self.running.remove(id);
                self.tenants.end(&request.tenant);
            }
            Phase::Ended { .. } => {}
        }
    }

    /// Takes the renewal of a worker's lease, which the server stored at this time.
    pub fn renewed(&mut self, now: Duration, stored: ServerTime, renewal: Renewal) {
        self.clock.note(now, stored);
        let leases = &mut self.leases;
        if leases.own.as_ref() == Some(&renewal.run) {
            self.clock.note_own(now, stored);
            if now.saturating_sub(leases.own_seen) > BLIND {
                leases.seen.values_mut().for_each(|seen| *seen = now);
            }
            leases.own_seen = now;
        }
        leases.seen.insert(renewal.run.clone(), now);
        let before = leases.renewals.insert(renewal.worker.clone(), renewal);
        let runs = || self.running.values();
        if let Some(before) = before
            && leases.renewals.values().all(|renewal| renewal.run != before.run)
            && runs().all(|run| *run != before.run)
        {
            leases.seen.remove(&before.run);
        }
    }

    /// The server's time, as far as it is known from what it stored last. A worker goes by its own
    /// renewals, once one has arrived.
    #[must_use]
    pub fn server_time(&self, now: Duration) -> ServerTime {
        self.clock.time(now)
    }

    /// Whether the lease of this life is over.
    #[must_use]
    pub fn is_lost(&self, now: Duration, run: &RunId) -> bool {
        let Leases { own, own_seen, seen, .. } = &self.leases;
        own.is_some()
            && own.as_ref() != Some(run)
            && now.saturating_sub(*own_seen) <= BLIND
            && seen.get(run).is_some_and(|seen| now.saturating_sub(*seen) >= LEASE)
    }

    /// The steps that any worker writes for others: lost leases, and deadlines that have passed.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<Due> {
        let lost = self.running.iter().filter(|(_, run)| self.is_lost(now, run));
        let lost = lost.filter_map(|(id, _)| {
            let change = Change::Lost { cause: LostCause::Lease, message: String::new() };
            self.due_of(id, change)
        });
        let time = self.server_time(now);
        // No one can take back such a step: what an old step says of the time is not enough.
        let is_sure = self.clock.is_sure();
        let passed = |deadline: ServerTime| is_sure && deadline < time;
        let expired = self.deadlines.iter().take_while(|(deadline, _)| passed(*deadline));
        let expired = expired.filter_map(|(_, id)| self.due_of(id, Change::Expired));
        lost.chain(expired).collect()
    }

    /// The steps for the jobs that this life of a worker runs, but those that it knows.
    #[must_use]
    pub fn due_of_run(
        &self,
        run: &RunId,
        is_known: impl Fn(&JobId) -> bool,
        change: impl Fn() -> Change,
    ) -> Vec<Due> {
        let own = self.running.iter().filter(|(id, owner)| *owner == run && !is_known(id));
        own.filter_map(|(id, _)| self.due_of(id, change())).collect()
    }

    fn due_of(&self, id: &JobId, change: Change) -> Option<Due> {
        let number = self.jobs.get(id)?.next;
        (self.tried.get(id) != Some(&number)).then(|| Due { id: id.clone(), number, change })
    }

    /// The job that a worker takes next: of the tenant with the fewest running jobs, then the highest
    /// class, then the one that has waited longest. A tenant with as many running jobs as it may have
    /// waits. What this reader claims already counts as running.
    #[must_use]
    pub fn choose(&self, now: Duration, seeker: Seeker<'_>) -> Option<(JobId, &JobState)> {
        let time = self.server_time(now);
        let claimed = self.claimed();
        let heads = self.waiting.iter().filter_map(|(tenant, places)| {
            let claimed = claimed.get(tenant).copied().unwrap_or_default();
            let running = self.tenants.running(tenant).saturating_add(claimed);
            if !self.tenants.allow(tenant, running.saturating_add(1)) {
                return None;
            }
            let place = places.iter().find(|place| self.is_eligible(&place.2, time, seeker))?;
            Some((running, place))
        });
        let (_, Place(.., id)) = heads.min()?;
        Some((id.clone(), self.jobs.get(id)?))
    }

    /// The waiting jobs that this reader claims already, by tenant.
    fn claimed(&self) -> HashMap<&Tenant, u32> {
        let mut claimed = HashMap::new();
        for (id, number) in &self.tried {
            let job = self.jobs.get(id).filter(|job| job.next == *number);
            if let Some(job) = job
                && matches!(job.phase, Phase::Waiting { .. })
            {
                *claimed.entry(&job.request.tenant).or_default() += 1;
            }
        }
        claimed
    }

    /// Takes the limits of a tenant.
    pub fn limit(&mut self, tenant: Tenant, limits: TenantLimits) {
        self.tenants.limit(tenant, limits);
    }

    /// Whether more jobs of this job's tenant run than may.
    #[must_use]
    pub fn is_over_limit(&self, id: &JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| {
            let tenant = &job.request.tenant;
            !self.tenants.allow(tenant, self.tenants.running(tenant))
        })
    }

    /// The tenants that have jobs which run or wait, or that have limits.
    #[must_use]
    pub fn tenants(&self) -> BTreeMap<Tenant, TenantUse> {
        let Tenants { running, limits } = &self.tenants;
        let names = self.waiting.keys().chain(running.keys()).chain(limits.keys());
        let all = names.map(|tenant| {
            let waiting = self.waiting.get(tenant).map_or(0, BTreeSet::len);
            let (running, limits) = (self.tenants.running(tenant), self.tenants.limits(tenant));
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            (tenant.clone(), TenantUse { running, waiting, limits })
        });
        all.collect()
    }

    /// The waiting jobs, each with its place among those of its tenant, from 1.
    pub fn places(&self) -> impl Iterator<Item = (&JobId, usize)> {
        self.waiting.values().flat_map(|places| places.iter().map(|place| &place.2).zip(1..))
    }

    /// Whether a job that this worker could run pauses after a lost attempt.
    #[must_use]
    pub fn has_pausing(&self, now: Duration, seeker: Seeker<'_>) -> bool {
        let time = self.server_time(now);
        self.starts.iter().any(|(_, id)| {
            self.jobs.get(id).is_some_and(|job| {
                let may_start = |earliest: Option<ServerTime>| earliest.is_none_or(|e| e <= time);
                may_start(job.request.not_before) && !may_start(job.earliest())
            }) && self.fits(id, time, seeker)
        })
    }

    fn is_eligible(&self, id: &JobId, time: ServerTime, seeker: Seeker<'_>) -> bool {
        let earliest = self.jobs.get(id).and_then(JobState::earliest);
        earliest.is_none_or(|earliest| earliest <= time) && self.fits(id, time, seeker)
    }

    /// Whether this worker could run the job, but for the time at which it may start.
    fn fits(&self, id: &JobId, time: ServerTime, seeker: Seeker<'_>) -> bool {
        let Some(job) = self.jobs.get(id) else { return false };
        let request = &job.request;
        self.tried.get(id) != Some(&job.next)
            && request.deadline.is_none_or(|deadline| time <= deadline)
            && job.is_met_by(seeker.features)
            && request.spec.machine.memory.0 <= seeker.memory
    }

    /// Notes that this reader tries to write this step. It tries it once.
    pub fn tried(&mut self, id: &JobId, number: u32) {
        self.tried.insert(id.clone(), number);
    }

    /// Notes that the step was not written: it may be tried again.
    pub fn not_written(&mut self, id: &JobId) {
        self.tried.remove(id);
    }

    /// How long nothing is due, if nothing arrives: until a lease or a deadline passes, or a job may
    /// start.
    #[must_use]
    pub fn quiet(&self, now: Duration) -> Option<Duration> {
        let time = self.server_time(now);
        let leases = self.running.values().filter_map(|run| self.leases.seen.get(run));
        let leases = leases.map(|seen| (*seen + LEASE).saturating_sub(now));
        let after = |moment: ServerTime| Duration::from_millis(moment.saturating_sub(time) + 1);
        let deadlines = self.deadlines.first().map(|(deadline, _)| after(*deadline));
        let mut later = self.starts.iter().map(|(start, _)| *start);
        let starts = later.find(|start| *start > time).map(after);
        // A lease that is over was written already, or cannot be judged now.
        let least = Duration::from_millis(200);
        leases.chain(deadlines).chain(starts).min().map(|quiet| quiet.max(least))
    }

    /// A job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&JobState> {
        self.jobs.get(id)
    }

    /// All jobs, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, &JobState)> {
        self.jobs.iter()
    }

    /// The jobs whose submission this version cannot read: a later version wrote it. A view of a
    /// worker knows none.
    pub fn unknown(&self) -> impl Iterator<Item = &JobId> {
        self.unknown.iter()
    }

    /// Whether the queue has such a job that this version cannot read.
    #[must_use]
    pub fn is_unknown(&self, id: &JobId) -> bool {
        self.unknown.contains(id)
    }

    /// The workers that have not said that they end, by name.
    pub fn workers(&self) -> impl Iterator<Item = &Renewal> {
        self.leases.renewals.values().filter(|renewal| renewal.state != WorkerState::Gone)
    }
}

#[cfg(test)]
mod tests;
