//! The loop of a worker: what arrives, what is due, who runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{Attempt, Stop};
use super::events::Events;
use super::pool::Pool;
use super::types::{Event, Options, Summary, WorkerError, attempts};
use crate::name::{JobId, RunId};
use crate::queue::{Leases, Queue, Steps, StoredStep, WriteError, Written, drain_subject};
use crate::request::Request;
use crate::state::ServerTime;
use crate::step::{Change, LostCause, Renewal, WorkerState};
use crate::view::{Due, RENEWAL, SELF_STOP, Seeker, View};

/// How often to ask whether the servers are down, while none confirms the lease.
const PROBE: Duration = Duration::from_secs(1);

/// A worker and the tasks that it owns.
pub(super) struct Worker {
    queue: Queue,
    options: Options,
    run: RunId,
    began: Instant,
    view: View,
    steps: Steps,
    leases: Leases,
    requests: Subscriber,
    running: HashMap<JobId, Running>,
    /// The jobs whose claim is not confirmed yet.
    claiming: HashMap<JobId, Claim>,
    attempts: JoinSet<Over>,
    pool: Pool,
    _pool: AbortOnDropHandle<()>,
    writes: JoinSet<Wrote>,
    /// The steps that no server confirmed. They are tried again after the next renewal.
    failed: Vec<(JobId, u32)>,
    renewals: JoinSet<(Instant, Result<(), WriteError>)>,
    /// When the last renewal was sent that a server confirmed.
    confirmed: Instant,
    /// Questions to the servers whether they are down.
    probes: JoinSet<(Instant, bool)>,
    /// When a question was sent whose answer was that they are down.
    down: Option<Instant>,
    probed: Instant,
    is_cut: bool,
    busy: Instant,
    drain: CancellationToken,
    draining: Option<Instant>,
    events: Events,
    summary: Summary,
}

/// A job that this worker runs.
struct Running {
    attempt: u32,
    /// The number of the step after its claim.
    next: u32,
    memory: u64,
    stop: watch::Sender<Option<Stop>>,
}

/// An attempt that is over.
struct Over {
    id: JobId,
    attempt: u32,
    /// Whether it wrote a result.
    is_result: bool,
}

/// A claim that is on its way.
struct Claim {
    attempt: u32,
    request: Arc<Request>,
    /// Since when the job could run.
    since: ServerTime,
}

/// A step that was on its way.
struct Wrote {
    due: Due,
    result: Result<Written, WriteError>,
}

impl Worker {
    /// Reads the queue as it is, and takes the lease.
    pub(super) async fn start(
        queue: Queue,
        options: Options,
        drain: CancellationToken,
        events: Events,
    ) -> Result<Self, WorkerError> {
        let began = Instant::now();
        let run = RunId::random();
        let subject = drain_subject(&options.name);
        let (pool, keeper) = Pool::start(options.warm.clone(), events.clone());
        let requests = queue.client().subscribe(subject).await.map_err(WorkerError::Listen)?;
        let mut worker = Self {
            view: View::of_worker(run.clone(), Duration::ZERO),
            steps: queue.steps().await?,
            leases: queue.leases().await?,
            requests,
            running: HashMap::new(),
            claiming: HashMap::new(),
            pool,
            _pool: keeper,
            attempts: JoinSet::new(),
            writes: JoinSet::new(),
            failed: Vec::new(),
            renewals: JoinSet::new(),
            confirmed: began,
            probes: JoinSet::new(),
            down: None,
            probed: began,
            is_cut: false,
            busy: began,
            draining: None,
            summary: Summary::default(),
            queue,
            options,
            run,
            began,
            drain,
            events,
        };
        worker.queue.renew(&worker.renewal(WorkerState::Ready)).await?;
        if let Some(metrics) = worker.events.metrics() {
            metrics.confirmed(began);
        }
        while !worker.steps.is_caught_up() {
            let step = worker.steps.next().await?;
            worker.take(step);
        }
        worker.tell(Event::Ready);
        Ok(worker)
    }

    fn tell(&self, event: Event) {
        self.events.tell(event);
    }

    fn renewal(&self, state: WorkerState) -> Renewal {
        Renewal {
            worker: self.options.name.clone(),
            run: self.run.clone(),
            slots: self.options.slots,
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            warm: self.pool.count(),
            state,
            labels: self.options.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reason: None,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Works until it is drained.
    pub(super) async fn run(mut self) -> Result<Summary, WorkerError> {
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = self.drain.clone();
        loop {
            self.advance();
            if self.is_done() {
                break;
            }
            let (quiet, cut, released) = (self.quiet(), self.cut_at(), self.release_at());
            let (idle, has_jobs) = (self.idle_at(), !self.running.is_empty());
            let probe = self.probe_at();
            tokio::select! {
                step = self.steps.next() => if let Ok(step) = step { self.take(step) },
                lease = self.leases.next() => if let Ok((stored, renewal)) = lease {
                    self.view.renewed(self.began.elapsed(), stored, renewal);
                },
                _ = renewal.tick() => self.renew(),
                Some(renewed) = self.renewals.join_next() => self.renewed(renewed),
                Some(wrote) = self.writes.join_next() => if let Ok(wrote) = wrote {
                    self.wrote(wrote);
                },
                Some(ended) = self.attempts.join_next() => self.ended(ended),
                Some(request) = self.requests.next() => {
                    if let Some(reply) = request.reply {
                        let _ = self.queue.client().publish(reply, bytes::Bytes::new()).await;
                    }
                    self.begin_drain();
                },
                () = drain.cancelled(), if self.draining.is_none() => self.begin_drain(),
                () = at(probe) => self.probe(),
                Some(Ok((asked, is_down))) = self.probes.join_next() => self.probed(asked, is_down),
                () = tokio::time::sleep_until(cut), if !self.is_cut => self.cut(),
                () = at(released), if has_jobs => self.stop_all(Stop::Released),
                () = at(idle), if !has_jobs => self.begin_drain(),
                () = at(quiet) => {},
            }
        }
        // A renewal that comes after the last one would bring the worker back.
        self.renewals.shutdown().await;
        self.queue.renew(&self.renewal(WorkerState::Gone)).await.ok();
        Ok(self.summary)
    }

    /// Takes a step, and notices what it means for the jobs that run here.
    fn take(&mut self, step: StoredStep) {
        if let Some(metrics) = self.events.metrics() {
            metrics.step(self.view.job(&step.id), &step);
        }
        let StoredStep { id, at, change } = step;
        self.view.apply(self.now(), &id, at, change);
        self.check(&id);
    }

    /// Stops a job that runs here, if the queue has cancelled it or gave it to another worker.
    fn check(&self, id: &JobId) {
        let Some(running) = self.running.get(id) else { return };
        match self.view.job(id) {
            // The claim has not come yet.
            Some(job) if job.next < running.next => {}
            Some(job) if job.is_run_by(&self.run, running.attempt) => {
                if job.is_cancelled {
                    running.stop(Stop::Cancelled);
                }
            }
            // The last step of this worker also comes here. Its attempt has ended then.
            _ => running.stop(Stop::Dropped),
        }
    }

    /// Writes what is due, and claims jobs while there is room.
    fn advance(&mut self) {
        let now = self.now();
        if self.is_cut || self.down.is_some() {
            return;
        }
        for due in self.view.due(now) {
            self.write(due);
        }
        self.give_back_unrun();
        self.claim(now);
        // What waits takes what the jobs leave. A worker that ends needs no machine.
        let left = if self.draining.is_some() { 0 } else { self.free_memory() };
        self.pool.set_budget(left);
    }

    /// Claims jobs while there is room.
    fn claim(&mut self, now: Duration) {
        while self.draining.is_none() {
            let taken = self.running.len() + self.claiming.len();
            if taken >= usize::try_from(self.options.slots).unwrap_or(usize::MAX) {
                return;
            }
            let seeker = Seeker { labels: &self.options.labels, memory: self.free_memory() };
            let Some((id, job)) = self.view.choose(now, seeker) else { return };
            let request = job.request.clone();
            let claim = Claim { attempt: job.attempt + 1, request, since: job.could_run_since() };
            let (worker, run) = (self.options.name.clone(), self.run.clone());
            let due = Due { id, number: job.next, change: Change::Claimed { worker, run } };
            self.claiming.insert(due.id.clone(), claim);
            self.write(due);
        }
    }

    /// Gives back the jobs that the queue says this worker runs, and that it does not: those whose
    /// claim no server confirmed, and those whose machines it ended when it was cut off.
    fn give_back_unrun(&mut self) {
        let is_known = |id: &JobId| self.running.contains_key(id) || self.claiming.contains_key(id);
        let change = || Change::Lost { cause: LostCause::Lease, message: String::new() };
        for due in self.view.due_of_run(&self.run, is_known, change) {
            self.write(due);
        }
    }

    fn free_memory(&self) -> u64 {
        let running: u64 = self.running.values().map(|running| running.memory).sum();
        let claims = self.claiming.values().map(|claim| claim.request.spec.machine.memory.0);
        let left = self.options.memory.saturating_sub(running + claims.sum::<u64>());
        // Other programs of the host may use more than the worker's owner knew.
        left.min(super::memory::available().unwrap_or(u64::MAX))
    }

    fn write(&mut self, due: Due) {
        self.view.tried(&due.id, due.number);
        let queue = self.queue.clone();
        self.writes.spawn(async move {
            let result = queue.write(&due.id, due.number, due.change.clone()).await;
            Wrote { due, result }
        });
    }

    /// Starts the job of a claim that was confirmed.
    fn wrote(&mut self, wrote: Wrote) {
        let Wrote { due, result } = wrote;
        // The claim of a job may be on its way while the step that freed the job is confirmed.
        let is_claim = matches!(due.change, Change::Claimed { .. });
        let claim = is_claim.then(|| self.claiming.remove(&due.id)).flatten();
        match (claim, result) {
            (Some(claim), Ok(Written::Own)) => self.begin(&due.id, due.number + 1, claim),
            // The view gets the other's step, and with it another number to try.
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                tracing::warn!(id = %due.id, %error, "the queue confirms no step");
                self.failed.push((due.id, due.number));
            }
        }
    }

    fn begin(&mut self, id: &JobId, next: u32, claim: Claim) {
        let Claim { attempt, request, since } = claim;
        let (stop, stopped) = watch::channel(None);
        let memory = request.spec.machine.memory.0;
        let task = Attempt {
            queue: self.queue.clone(),
            id: id.clone(),
            next,
            attempt,
            request,
            directory: attempts(&self.options.directory).join(format!("{id}.{attempt}")),
            stop: stopped,
            claimed: Instant::now(),
            pool: self.pool.clone(),
            events: self.events.clone(),
        };
        let waited = self.view.server_time(self.now()).saturating_sub(since);
        let waited = Duration::from_millis(waited);
        self.tell(Event::Claimed { id: id.clone(), attempt, waited });
        self.summary.claimed += 1;
        self.running.insert(id.clone(), Running { attempt, next, memory, stop });
        let name = id.clone();
        self.attempts.spawn(async move { Over { id: name, attempt, is_result: task.run().await } });
        self.check(id);
    }

    fn ended(&mut self, ended: Result<Over, tokio::task::JoinError>) {
        self.busy = Instant::now();
        match ended {
            Ok(Over { id, attempt, is_result }) => {
                // The next attempt may have begun here before this one was cleaned up.
                if self.running.get(&id).is_some_and(|running| running.attempt == attempt) {
                    self.running.remove(&id);
                }
                self.summary.ended += u64::from(is_result);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    fn renew(&mut self) {
        let state = match self.draining {
            Some(_) => WorkerState::Draining,
            None => WorkerState::Ready,
        };
        let (queue, renewal) = (self.queue.clone(), self.renewal(state));
        let sent = Instant::now();
        self.renewals.spawn(async move { (sent, queue.renew(&renewal).await) });
    }

    fn renewed(
        &mut self,
        renewed: Result<(Instant, Result<(), WriteError>), tokio::task::JoinError>,
    ) {
        match renewed {
            Ok((sent, Ok(()))) => {
                self.confirmed = self.confirmed.max(sent);
                if let Some(metrics) = self.events.metrics() {
                    metrics.confirmed(sent);
                }
                for (id, number) in std::mem::take(&mut self.failed) {
                    // The step may have been written. Its number tells.
                    if self.view.job(&id).is_some_and(|job| job.next == number) {
                        self.view.not_written(&id);
                    }
                }
                let was_down = self.down.take().is_some();
                if std::mem::take(&mut self.is_cut) || was_down {
                    self.tell(Event::Back);
                }
            }
            Ok((_, Err(error))) => tracing::warn!(%error, "the queue confirms no lease"),
            Err(_) => {}
        }
    }

    /// When the machines must end, if nothing arrives. While the servers are down, no other worker
    /// takes their jobs.
    fn cut_at(&self) -> Instant {
        self.confirmed.max(self.down.unwrap_or(self.confirmed)) + SELF_STOP
    }

    /// When to ask whether the servers are down: often enough that a worker which missed their
    /// return ends its machines before its lease.
    fn probe_at(&self) -> Option<Instant> {
        let overdue = self.confirmed + RENEWAL + PROBE;
        (self.probes.is_empty() && !self.is_cut).then(|| overdue.max(self.probed + PROBE))
    }

    fn probe(&mut self) {
        self.probed = Instant::now();
        let (queue, asked) = (self.queue.clone(), self.probed);
        self.probes.spawn(async move { (asked, queue.is_down().await) });
    }

    /// Takes the answer to a question that was asked then.
    fn probed(&mut self, asked: Instant, is_down: bool) {
        // A renewal that was confirmed since then knows better.
        if is_down && asked > self.confirmed && self.down.replace(asked).is_none() {
            self.tell(Event::Down);
        }
    }

    /// Ends all machines before others may take their jobs.
    fn cut(&mut self) {
        self.is_cut = true;
        self.stop_all(Stop::Dropped);
        self.tell(Event::Cut);
    }

    fn stop_all(&self, stop: Stop) {
        self.running.values().for_each(|running| running.stop(stop));
    }

    fn begin_drain(&mut self) {
        if self.draining.is_none() {
            self.draining = Some(Instant::now());
            self.tell(Event::Draining);
            self.renew();
        }
    }

    fn release_at(&self) -> Option<Instant> {
        let any_left = self.running.values().any(|running| running.stop.borrow().is_none());
        self.draining.filter(|_| any_left).map(|since| since + self.options.drain_timeout)
    }

    fn idle_at(&self) -> Option<Instant> {
        let exit = self.options.idle_exit.filter(|_| self.draining.is_none())?;
        Some(self.busy + exit)
    }

    fn quiet(&self) -> Option<Instant> {
        let now = self.now();
        self.view.quiet(now).map(|quiet| self.began + now + quiet)
    }

    fn is_done(&mut self) -> bool {
        let is_idle = self.attempts.is_empty() && self.writes.is_empty();
        if is_idle && self.options.once && self.draining.is_none() && !self.is_cut {
            self.begin_drain();
        }
        is_idle && self.draining.is_some()
    }
}

impl Running {
    /// Stops it. Only a drop goes over another reason.
    fn stop(&self, stop: Stop) {
        self.stop.send_if_modified(|now| {
            let changes = now.is_none() || (stop == Stop::Dropped && *now != Some(stop));
            if changes {
                *now = Some(stop);
            }
            changes
        });
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
