//! What a worker decides: which jobs it claims, stops and gives back. No I/O, no clock.
//!
//! Times are durations of the worker's own monotonic clock since it began.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::idle::{Left, Reason};
use crate::name::{JobId, RunId, Tenant, WorkerName};
use crate::request::Request;
use crate::requirement::Features;
use crate::state::{JobState, ServerTime, Stored};
use crate::step::{Change, LostCause, Renewal};
use crate::tenants::TenantLimits;
use crate::view::{Due, SELF_STOP, Seeker, View};

/// Why an attempt stops before its command has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A client cancelled the job.
    Cancelled,
    /// The worker ends, and gives the job back.
    Released,
    /// The job is not this worker's any more: nothing more may be written.
    Dropped,
}

/// What the worker has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Write a step, and say what became of it.
    Write(Due),
    /// Start a machine for the job.
    Begin(Begin),
    /// Stop the last attempt of the job that began here.
    Stop(JobId, Stop),
}

/// An attempt that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) id: JobId,
    pub(super) attempt: u32,
    /// The number of the step after the claim.
    pub(super) next: u32,
    pub(super) request: Arc<Request>,
    /// Since when the job could run.
    pub(super) since: ServerTime,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was written.
    Own,
    /// Another writer was first.
    Other,
    /// No server confirmed it. It may be written.
    Unknown,
}

/// What a worker has for its jobs.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    pub(super) slots: u32,
    pub(super) features: Features,
    /// In bytes.
    pub(super) memory: u64,
    /// It takes no job while less is free on its disk, in bytes.
    pub(super) min_free_disk: u64,
}

/// The decisions of one life of a worker.
#[derive(Debug)]
pub(super) struct Decider {
    name: WorkerName,
    run: RunId,
    capacity: Capacity,
    view: View,
    running: BTreeMap<JobId, Running>,
    /// The claims whose jobs have not begun, by the number of their step: the answer to one may come
    /// after the next claim of the same job.
    claiming: BTreeMap<(JobId, u32), Claim>,
    /// The steps that no server confirmed. They are tried again after the next renewal.
    failed: Vec<(JobId, u32)>,
    /// When the last renewal was sent that a server confirmed.
    confirmed: Duration,
    /// When a question was sent whose answer was that the servers are down.
    down: Option<Duration>,
    is_cut: bool,
    is_draining: bool,
    idle: Option<Reason>,
    orders: Vec<Order>,
}

/// A job that this worker runs.
#[derive(Debug)]
struct Running {
    attempt: u32,
    /// The number of the step after its claim.
    next: u32,
    memory: u64,
    stop: Option<Stop>,
}

/// A claim that is on its way.
#[derive(Debug)]
struct Claim {
    /// Whether a server confirmed it. It may still be behind a cancellation.
    is_own: bool,
    attempt: u32,
    request: Arc<Request>,
    since: ServerTime,
    /// The lease ended before the answer came: the job may be another worker's.
    is_late: bool,
    /// The tenant has as many running jobs as it may have without this one.
    is_over: bool,
}

impl Decider {
    pub(super) fn new(name: WorkerName, run: RunId, capacity: Capacity) -> Self {
        Self {
            view: View::of_worker(run.clone(), Duration::ZERO),
            name,
            run,
            capacity,
            running: BTreeMap::new(),
            claiming: BTreeMap::new(),
            failed: Vec::new(),
            confirmed: Duration::ZERO,
            down: None,
            is_cut: false,
            is_draining: false,
            idle: None,
            orders: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub(super) fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Takes a step, and notices what it means for the jobs that run here.
    pub(super) fn take(&mut self, now: Duration, id: &JobId, at: Stored, change: Option<Change>) {
        let is_own = matches!(&change, Some(Change::Claimed { run, .. }) if *run == self.run);
        self.view.apply(now, id, at, change);
        if is_own && self.view.is_over_limit(id) {
            self.exceeds(id, at.number);
        }
        self.begin_claimed(now, id);
        self.check(id);
    }

    /// Takes the limits of a tenant.
    pub(super) fn limit(&mut self, tenant: Tenant, limits: TenantLimits) {
        self.view.limit(tenant, limits);
    }

    /// Notes that another worker took the last place of the tenant before this claim. All readers
    /// count in the order of the steps, so the claims before stay.
    fn exceeds(&mut self, id: &JobId, number: u32) {
        if let Some(claim) = self.claiming.get_mut(&(id.clone(), number)) {
            claim.is_over = true;
        }
    }

    /// A job that has not ended.
    pub(super) fn job(&self, id: &JobId) -> Option<&JobState> {
        self.view.job(id)
    }

    /// The server's time, as far as it is known.
    pub(super) fn server_time(&self, now: Duration) -> ServerTime {
        self.view.server_time(now)
    }

    /// Takes a lease that was renewed.
    pub(super) fn lease(&mut self, now: Duration, stored: ServerTime, renewal: Renewal) {
        self.view.renewed(now, stored, renewal);
    }

    /// Stops a job that runs here, if the queue has cancelled it or gave it to another worker.
    fn check(&mut self, id: &JobId) {
        let Some(running) = self.running.get(id) else { return };
        let stop = match self.view.job(id) {
            // The claim has not come yet.
            Some(job) if job.next < running.next => return,
            Some(job) if job.is_run_by(&self.run, running.attempt) => {
                if !job.is_cancelled {
                    return;
                }
                Stop::Cancelled
            }
            // The last step of this worker also comes here. Its attempt has ended then.
            _ => Stop::Dropped,
        };
        self.stop(id, stop);
    }

    /// Stops a job. Only a drop goes over another reason.
    fn stop(&mut self, id: &JobId, stop: Stop) {
        let Some(running) = self.running.get_mut(id) else { return };
        let changes = match running.stop {
            None => true,
            Some(before) => stop == Stop::Dropped && before != stop,
        };
        if changes {
            running.stop = Some(stop);
            self.orders.push(Order::Stop(id.clone(), stop));
        }
    }

    /// Writes what is due, and claims jobs while there is room, with what the host has left.
    pub(super) fn advance(&mut self, now: Duration, left: Left) {
        self.write_due(now, left);
        self.idle = self.why_idle(now, left);
    }

    /// Why the worker took no more jobs when it looked last.
    pub(super) const fn idle(&self) -> Option<Reason> {
        self.idle
    }

    fn write_due(&mut self, now: Duration, left: Left) {
        if self.is_cut || self.down.is_some() {
            return;
        }
        for due in self.view.due(now) {
            self.write(due);
        }
        self.give_back_unrun();
        while !self.is_draining && self.has_room() && self.has_disk(left) {
            let memory = self.free_memory(left.memory);
            let seeker = Seeker { features: &self.capacity.features, memory };
            let Some((id, job)) = self.view.choose(now, seeker) else { return };
            let (attempt, request) = (job.attempt + 1, job.request.clone());
            let (since, is_late, is_own) = (job.could_run_since(), false, false);
            let claim = Claim { is_own, attempt, request, since, is_late, is_over: false };
            let (worker, run) = (self.name.clone(), self.run.clone());
            let due = Due { id, number: job.next, change: Change::Claimed { worker, run } };
            self.claiming.insert((due.id.clone(), due.number), claim);
            self.write(due);
        }
    }

    /// After the claims: what is left is for no job.
    fn why_idle(&self, now: Duration, left: Left) -> Option<Reason> {
        if self.is_draining {
            return Some(Reason::Draining);
        }
        if self.is_cut || self.down.is_some() || !self.has_room() {
            return None;
        }
        if !self.has_disk(left) {
            return Some(Reason::Disk);
        }
        let (features, memory) = (&self.capacity.features, self.capacity.memory);
        let could_run = self.view.choose(now, Seeker { features, memory });
        could_run.map(|_| Reason::Memory)
    }

    const fn has_disk(&self, left: Left) -> bool {
        left.disk >= self.capacity.min_free_disk
    }

    /// Whether a job that could run here pauses after a lost attempt.
    pub(super) fn has_pausing(&self, now: Duration) -> bool {
        let (features, memory) = (&self.capacity.features, self.free_memory(u64::MAX));
        let seeker = Seeker { features, memory };
        self.view.has_pausing(now, seeker)
    }

    /// Whether a slot is free.
    pub(super) fn has_room(&self) -> bool {
        let taken = self.running.len() + self.claiming.len();
        taken < usize::try_from(self.capacity.slots).unwrap_or(usize::MAX)
    }

    /// The bytes that its jobs leave, of those that the host has available.
    pub(super) fn free_memory(&self, available: u64) -> u64 {
        let running: u64 = self.running.values().map(|running| running.memory).sum();
        let claims = self.claiming.values().map(|claim| claim.request.spec.machine.memory.0);
        self.capacity.memory.saturating_sub(running + claims.sum::<u64>()).min(available)
    }

    /// Gives back the jobs that the queue says this worker runs, and that it does not: those whose
    /// claim no server confirmed, and those whose machines it ended when it was cut off.
    fn give_back_unrun(&mut self) {
        let is_claimed = |id: &JobId| self.claiming.keys().any(|(claimed, _)| claimed == id);
        let is_known = |id: &JobId| self.running.contains_key(id) || is_claimed(id);
        let change = || Change::Lost { cause: LostCause::Lease, message: String::new() };
        for due in self.view.due_of_run(&self.run, is_known, change) {
            self.write(due);
        }
    }

    fn write(&mut self, due: Due) {
        self.view.tried(&due.id, due.number);
        self.orders.push(Order::Write(due));
    }

    /// Takes the answer to a step. The job of a claim that was confirmed starts once the claim
    /// arrives here, unless that is so late that another worker may have the job.
    pub(super) fn wrote(&mut self, now: Duration, due: Due, answer: Answer) {
        let claim = self.claiming.remove(&(due.id.clone(), due.number));
        match (claim, answer) {
            (Some(claim), Answer::Own) => {
                let claim = Claim { is_own: true, ..claim };
                self.claiming.insert((due.id.clone(), due.number), claim);
                self.begin_claimed(now, &due.id);
            }
            // The view gets the other's step, and with it another number to try.
            (_, Answer::Own | Answer::Other) => {}
            (_, Answer::Unknown) => self.failed.push((due.id, due.number)),
        }
    }

    /// Begins the job whose own claim has arrived: it is not behind a cancellation then.
    fn begin_claimed(&mut self, now: Duration, id: &JobId) {
        let next = self.view.job(id).map(|job| job.next);
        let keys = (id.clone(), 0)..=(id.clone(), u32::MAX);
        let arrived = |number: u32| next.is_none_or(|next| number < next);
        let own =
            self.claiming.range(keys).find(|((_, number), claim)| claim.is_own && arrived(*number));
        let Some(key) = own.map(|(key, _)| key.clone()) else { return };
        let Some(claim) = self.claiming.remove(&key) else { return };
        let has_lease = self.cut_at().is_some_and(|cut| now < cut) && !claim.is_late;
        let job = self.view.job(id);
        let is_here = job.is_some_and(|job| job.is_run_by(&self.run, claim.attempt));
        if is_here && claim.is_over {
            let change = Change::Lost { cause: LostCause::Released, message: String::new() };
            self.write(Due { id: id.clone(), number: key.1 + 1, change });
        } else if is_here && has_lease {
            self.begin(id, key.1 + 1, claim);
        }
    }

    fn begin(&mut self, id: &JobId, next: u32, claim: Claim) {
        let Claim { attempt, request, since, .. } = claim;
        let memory = request.spec.machine.memory.0;
        self.running.insert(id.clone(), Running { attempt, next, memory, stop: None });
        self.orders.push(Order::Begin(Begin { id: id.clone(), attempt, next, request, since }));
        self.check(id);
    }

    /// Notes that an attempt is over.
    pub(super) fn ended(&mut self, id: &JobId, attempt: u32) {
        // The next attempt may have begun here before this one was cleaned up.
        if self.running.get(id).is_some_and(|running| running.attempt == attempt) {
            self.running.remove(id);
        }
    }

    /// Notes that an attempt ended by a fault of the worker's program. The job gets another one, and
    /// the worker continues with its other jobs. Returns whether the job was still its own.
    pub(super) fn broken(&mut self, id: &JobId, attempt: u32, message: String) -> bool {
        self.ended(id, attempt);
        let Some(job) = self.view.job(id).filter(|job| job.is_run_by(&self.run, attempt)) else {
            return false;
        };
        if self.is_cut || self.running.contains_key(id) {
            return false;
        }
        let change = Change::Lost { cause: LostCause::Machine, message };
        self.write(Due { id: id.clone(), number: job.next, change });
        true
    }

    /// Notes that a server confirmed the renewal that was sent then. Returns whether the worker was
    /// cut off before, or the servers were down.
    pub(super) fn confirmed(&mut self, sent: Duration) -> bool {
        // A worker that was paused may hear of its new lease before it notices the end of the old.
        if self.cut_at().is_some_and(|cut| cut <= sent) {
            self.cut();
        }
        self.confirmed = self.confirmed.max(sent);
        for (id, number) in std::mem::take(&mut self.failed) {
            // The step may have been written. Its number tells.
            if self.view.job(&id).is_some_and(|job| job.next == number) {
                self.view.not_written(&id);
            }
        }
        let was_down = self.down.take().is_some();
        std::mem::take(&mut self.is_cut) || was_down
    }

    /// When the last renewal was sent that a server confirmed.
    pub(super) const fn last_confirmed(&self) -> Duration {
        self.confirmed
    }

    /// Notes that the servers are down, as the answer to a question that was asked then. Returns
    /// whether that is news.
    pub(super) fn down(&mut self, asked: Duration) -> bool {
        // A renewal that was confirmed since then knows better.
        asked > self.confirmed && self.down.replace(asked).is_none()
    }

    /// When the machines must end, if nothing arrives. `None`: they have. While the servers are
    /// down, no other worker takes their jobs.
    pub(super) fn cut_at(&self) -> Option<Duration> {
        let known = self.confirmed.max(self.down.unwrap_or_default());
        (!self.is_cut).then_some(known + SELF_STOP)
    }

    /// Ends all machines before others may take their jobs.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.stop_all(Stop::Dropped);
        // What was confirmed is given back once it arrives.
        self.claiming.retain(|_, claim| !claim.is_own);
        self.claiming.values_mut().for_each(|claim| claim.is_late = true);
    }

    /// Stops all jobs.
    pub(super) fn stop_all(&mut self, stop: Stop) {
        let ids: Vec<_> = self.running.keys().cloned().collect();
        ids.iter().for_each(|id| self.stop(id, stop));
    }

    /// Takes no more jobs.
    pub(super) const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// How long nothing is due, if nothing arrives.
    pub(super) fn quiet(&self, now: Duration) -> Option<Duration> {
        self.view.quiet(now)
    }

    /// The number of jobs that run here.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a job may still begin here.
    pub(super) fn has_claims(&self) -> bool {
        !self.claiming.is_empty()
    }

    /// Whether a job runs here that is not to stop.
    pub(super) fn has_unstopped(&self) -> bool {
        self.running.values().any(|running| running.stop.is_none())
    }

    #[cfg(test)]
    pub(super) const fn view(&self) -> &View {
        &self.view
    }

    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }
}

#[cfg(test)]
mod tests;
