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

use super::attempt::Attempt;
use super::decide::{Answer, Begin, Capacity, Decider, Order, Stop};
use super::events::Events;
use super::guarded::guarded;
use super::identity;
use super::idle::Left;
use super::machines::Machines;
use super::pool::Pool;
use super::runner::Runner;
use super::types::{Event, Options, Summary, WorkerError, attempts};
use crate::moment::at;
use crate::name::{JobId, RunId};
use crate::queue::{Leases, Limits, Queue, Steps, StoredStep, WriteError, Written, drain_subject};
use crate::state::ServerTime;
use crate::step::{LostCause, MAX_MESSAGE, Renewal, WorkerState};
use crate::store::Store;
use crate::view::{Due, RENEWAL};

/// How often to ask whether the servers are down, while none confirms the lease.
const PROBE: Duration = Duration::from_secs(1);

/// A worker and the tasks that it owns.
pub(super) struct Worker {
    queue: Queue,
    options: Options,
    run: RunId,
    /// The lives that had the name before.
    before: Vec<RunId>,
    began: Instant,
    decider: Decider,
    steps: Steps,
    leases: Leases,
    limits: Limits,
    requests: Subscriber,
    /// How to stop each attempt that runs.
    stops: HashMap<JobId, (u32, watch::Sender<Option<Stop>>)>,
    attempts: JoinSet<Over>,
    pool: Pool,
    machines: Machines,
    _pool: AbortOnDropHandle<()>,
    writes: JoinSet<Wrote>,
    renewals: JoinSet<(Duration, Result<(), WriteError>)>,
    /// Questions to the servers whether they are down.
    probes: JoinSet<(Duration, bool)>,
    probed: Duration,
    busy: Instant,
    drain: CancellationToken,
    draining: Option<Instant>,
    events: Events,
    summary: Summary,
}

/// An attempt that is over.
struct Over {
    id: JobId,
    attempt: u32,
    /// Whether it wrote a result. An error: it broke.
    is_result: Result<bool, String>,
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
        runner: Option<Arc<dyn Runner>>,
        drain: CancellationToken,
        events: Events,
    ) -> Result<Self, WorkerError> {
        let began = Instant::now();
        let run = RunId::random();
        let subject = drain_subject(&options.name);
        let (pool, keeper) = Pool::start(options.warm.clone(), events.clone());
        let requests = queue.client().subscribe(subject).await.map_err(WorkerError::Listen)?;
        let capacity = Capacity {
            slots: options.slots,
            features: options.features.clone(),
            memory: options.memory,
            min_free_disk: options.min_free_disk,
        };
        let max_artifacts = options.max_artifacts;
        let sandboxes = || Machines::Sandboxes(pool.clone(), max_artifacts);
        let mut worker = Self {
            decider: Decider::new(options.name.clone(), run.clone(), capacity),
            steps: queue.steps().await?,
            leases: queue.leases().await?,
            limits: queue.limits().await?,
            requests,
            stops: HashMap::new(),
            machines: runner.map_or_else(sandboxes, Machines::Other),
            pool,
            _pool: keeper,
            attempts: JoinSet::new(),
            writes: JoinSet::new(),
            renewals: JoinSet::new(),
            probes: JoinSet::new(),
            probed: Duration::ZERO,
            busy: began,
            draining: None,
            summary: Summary::default(),
            queue,
            options,
            run,
            before: Vec::new(),
            began,
            drain,
            events,
        };
        worker.take_name().await?;
        if let Some(metrics) = worker.events.metrics() {
            metrics.confirmed(began);
        }
        while !worker.steps.is_caught_up() {
            let step = worker.steps.next().await?;
            worker.take(step);
        }
        while !worker.limits.is_caught_up() {
            let (tenant, limits) = worker.limits.next().await?;
            worker.decider.limit(tenant, limits);
        }
        worker.tell(Event::Ready);
        Ok(worker)
    }

    /// Takes the lease, unless another worker has the name.
    async fn take_name(&mut self) -> Result<(), WorkerError> {
        let (name, directory) = (&self.options.name, &self.options.directory);
        let (decider, began) = (&mut self.decider, self.began);
        let held = identity::read(&mut self.leases, name, |lease| {
            if let Some(renewal) = lease.renewal.clone() {
                decider.lease(began.elapsed(), lease.time, renewal);
            }
        });
        let (held, previous) = (held.await?, identity::previous(directory));
        let taken = |age| WorkerError::Name { name: name.clone(), age };
        let opened = self.leases.opened();
        let age = |lease| identity::taken(lease, previous.as_ref(), opened);
        if let Some(age) = held.as_ref().and_then(age) {
            return Err(taken(age));
        }
        let failed = |cause| WorkerError::Files { path: directory.clone(), cause };
        identity::note(directory, &self.run).map_err(failed)?;
        let last = held.as_ref().map(|lease| lease.sequence);
        let renewed = held.and_then(|lease| lease.renewal).map(|renewal| renewal.run);
        self.before = renewed.into_iter().chain(previous).collect();
        match self.queue.take_lease(&self.renewal(WorkerState::Ready), last).await? {
            true => Ok(()),
            false => Err(taken(Duration::ZERO)),
        }
    }

    fn tell(&self, event: Event) {
        self.events.tell(event);
    }

    fn renewal(&self, state: WorkerState) -> Renewal {
        Renewal {
            worker: self.options.name.clone(),
            run: self.run.clone(),
            slots: self.options.slots,
            running: u32::try_from(self.decider.running()).unwrap_or(u32::MAX),
            warm: self.pool.count(),
            state,
            labels: self.options.features.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reason: self.decider.idle().map(|reason| reason.word().to_owned()),
            capacity: Some(self.options.capacity()),
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
            let (idle, has_jobs) = (self.idle_at(), self.decider.running() > 0);
            let probe = self.probe_at();
            tokio::select! {
                step = self.steps.next() => if let Ok(step) = step { self.take(step) },
                lease = self.leases.next() => if let Ok((stored, renewal)) = lease {
                    self.lease(stored, renewal)?;
                },
                limits = self.limits.next() => if let Ok((tenant, limits)) = limits {
                    self.decider.limit(tenant, limits);
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
                () = at(cut) => self.cut(),
                () = at(released), if has_jobs => {
                    self.decider.stop_all(Stop::Released);
                },
                () = at(idle), if !has_jobs => self.begin_drain(),
                () = at(quiet) => {},
            }
        }
        // A renewal that comes after the last one would bring the worker back.
        self.renewals.shutdown().await;
        self.queue.renew(&self.renewal(WorkerState::Gone)).await.ok();
        Ok(self.summary)
    }

    /// Takes a step.
    fn take(&mut self, step: StoredStep) {
        if let Some(metrics) = self.events.metrics() {
            metrics.step(self.decider.job(&step.id), &step);
        }
        let StoredStep { id, at, change } = step;
        self.decider.take(self.now(), &id, at, change);
    }

    /// Takes a renewal, of this worker or of another.
    fn lease(&mut self, stored: ServerTime, renewal: Renewal) -> Result<(), WorkerError> {
        let name = &self.options.name;
        if identity::is_lost(name, &self.run, &self.before, &renewal) {
            // It was cut off for longer than its lease. Its machines end with it.
            return Err(WorkerError::Name { name: name.clone(), age: Duration::ZERO });
        }
        self.decider.lease(self.now(), stored, renewal);
        Ok(())
    }

    /// Does what was decided.
    fn obey(&mut self) {
        for order in self.decider.orders() {
            match order {
                Order::Write(due) => self.write(due),
                Order::Begin(begin) => self.begin(begin),
                Order::Stop(id, stop) => {
                    if let Some((_, sender)) = self.stops.get(&id) {
                        sender.send_replace(Some(stop));
                    }
                }
            }
        }
    }

    /// Decides what is to be done, and does it.
    fn advance(&mut self) {
        let left = self.left();
        self.decider.advance(self.now(), left);
        if let Some(metrics) = self.events.metrics() {
            metrics.idle(self.decider.idle());
        }
        self.obey();
        // What waits takes what the jobs leave. A worker that ends needs no machine.
        let is_draining = self.draining.is_some();
        self.pool.set_budget(if is_draining { 0 } else { self.decider.free_memory(left.memory) });
    }

    /// Other programs of the host may use more than the worker's owner knew. This asks the kernel,
    /// so only if the numbers decide something.
    fn left(&self) -> Left {
        let has_room = self.decider.has_room();
        let memory = || super::memory::available();
        let disk = || super::disk::free(&self.options.directory);
        let needs_memory = has_room || !self.options.warm.is_empty();
        Left {
            memory: needs_memory.then(memory).flatten().unwrap_or(Left::UNKNOWN.memory),
            disk: has_room.then(disk).flatten().unwrap_or(Left::UNKNOWN.disk),
        }
    }

    fn write(&mut self, due: Due) {
        let queue = self.queue.clone();
        self.writes.spawn(async move {
            let result = queue.write(&due.id, due.number, due.change.clone()).await;
            Wrote { due, result }
        });
    }

    fn wrote(&mut self, wrote: Wrote) {
        let Wrote { due, result } = wrote;
        let answer = match result {
            Ok(Written::Own) => Answer::Own,
            Ok(Written::Other(_)) => Answer::Other,
            Err(error) => {
                tracing::warn!(id = %due.id, %error, "the queue confirms no step");
                Answer::Unknown
            }
        };
        self.decider.wrote(self.now(), due, answer);
    }

    fn begin(&mut self, begin: Begin) {
        let Begin { id, attempt, next, request, since } = begin;
        let (stop, stopped) = watch::channel(None);
        let task = Attempt {
            queue: self.queue.clone(),
            id: id.clone(),
            next,
            attempt,
            request,
            directory: attempts(&self.options.directory).join(format!("{id}.{attempt}")),
            stop: stopped,
            claimed: Instant::now(),
            machines: self.machines.clone(),
            groups: self.options.groups.clone(),
            max_log: self.options.max_log,
            max_artifacts: self.options.max_artifacts,
            key: self.options.key.clone(),
            store: match &self.options.store {
                Some(store) => store.clone(),
                None => Store::of_queue(self.queue.clone()),
            },
            events: self.events.clone(),
        };
        let waited = self.decider.server_time(self.now()).saturating_sub(since);
        let waited = Duration::from_millis(waited);
        self.tell(Event::Claimed { id: id.clone(), attempt, waited });
        self.summary.claimed += 1;
        self.stops.insert(id.clone(), (attempt, stop));
        let directory = task.directory.clone();
        self.attempts.spawn(async move {
            Over { id, attempt, is_result: guarded(task.run(), directory).await }
        });
    }

    fn ended(&mut self, ended: Result<Over, tokio::task::JoinError>) {
        self.busy = Instant::now();
        // The panic of an attempt is in what it returns, and none is cancelled before the worker.
        let Ok(Over { id, attempt, is_result }) = ended else { return };
        let is_result = is_result.unwrap_or_else(|message| {
            self.broken(&id, attempt, message);
            false
        });
        self.decider.ended(&id, attempt);
        // The next attempt may have begun here before this one was cleaned up.
        if self.stops.get(&id).is_some_and(|(last, _)| *last == attempt) {
            self.stops.remove(&id);
        }
        self.summary.ended += u64::from(is_result);
    }

    fn broken(&mut self, id: &JobId, attempt: u32, mut message: String) {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        tracing::error!(%id, attempt, message, "an attempt broke");
        let (id, event) = (id.clone(), message.clone());
        if self.decider.broken(&id, attempt, message) {
            let cause = LostCause::Machine;
            self.tell(Event::Lost { id, attempt, cause, message: event });
        } else {
            self.tell(Event::Dropped { id, attempt });
        }
    }

    fn renew(&mut self) {
        let state = match self.draining {
            Some(_) => WorkerState::Draining,
            None => WorkerState::Ready,
        };
        let (queue, renewal) = (self.queue.clone(), self.renewal(state));
        let sent = self.now();
        self.renewals.spawn(async move { (sent, queue.renew(&renewal).await) });
    }

    fn renewed(
        &mut self,
        renewed: Result<(Duration, Result<(), WriteError>), tokio::task::JoinError>,
    ) {
        match renewed {
            Ok((sent, Ok(()))) => {
                if let Some(metrics) = self.events.metrics() {
                    metrics.confirmed(self.began + sent);
                }
                // A worker that was paused may hear of its new lease before it notices the end of
                // the old.
                if self.cut_at().is_some_and(|cut| cut <= self.began + sent) {
                    self.cut();
                }
                if self.decider.confirmed(sent) {
                    self.tell(Event::Back);
                }
            }
            Ok((_, Err(error))) => tracing::warn!(%error, "the queue confirms no lease"),
            Err(_) => {}
        }
    }

    fn cut_at(&self) -> Option<Instant> {
        self.decider.cut_at().map(|after| self.began + after)
    }

    /// When to ask whether the servers are down: often enough that a worker which missed their
    /// return ends its machines before its lease.
    fn probe_at(&self) -> Option<Instant> {
        let overdue = self.decider.last_confirmed() + RENEWAL + PROBE;
        let next = self.began + overdue.max(self.probed + PROBE);
        (self.probes.is_empty() && !self.decider.is_cut()).then_some(next)
    }

    fn probe(&mut self) {
        self.probed = self.now();
        let (queue, asked) = (self.queue.clone(), self.probed);
        self.probes.spawn(async move { (asked, queue.is_down().await) });
    }

    /// Takes the answer to a question that was asked then.
    fn probed(&mut self, asked: Duration, is_down: bool) {
        if is_down && self.decider.down(asked) {
            self.tell(Event::Down);
        }
    }

    /// Ends all machines before others may take their jobs.
    fn cut(&mut self) {
        self.decider.cut();
        self.tell(Event::Cut);
    }

    fn begin_drain(&mut self) {
        if self.draining.is_none() {
            self.draining = Some(Instant::now());
            self.decider.drain();
            self.tell(Event::Draining);
            self.renew();
        }
    }

    fn release_at(&self) -> Option<Instant> {
        let any_left = self.decider.has_unstopped();
        self.draining.filter(|_| any_left).map(|since| since + self.options.drain_timeout)
    }

    fn idle_at(&self) -> Option<Instant> {
        let exit = self.options.idle_exit.filter(|_| self.draining.is_none())?;
        Some(self.busy + exit)
    }

    fn quiet(&self) -> Option<Instant> {
        let now = self.now();
        self.decider.quiet(now).map(|quiet| self.began + now + quiet)
    }

    fn is_done(&mut self) -> bool {
        let has_work = !self.attempts.is_empty() || self.decider.has_claims();
        let is_idle = !has_work && self.writes.is_empty();
        let is_last = is_idle && self.options.once && !self.decider.has_pausing(self.now());
        if is_last && self.draining.is_none() && !self.decider.is_cut() {
            self.begin_drain();
        }
        is_idle && self.draining.is_some()
    }
}
