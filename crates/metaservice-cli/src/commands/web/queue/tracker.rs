//! Follows the jobs and workers of a queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metaservice_fleet::name::{Tenant, WorkerName};
use metaservice_fleet::queue::{Queue, ReadError, StoredStep};
use metaservice_fleet::state::Phase;
use metaservice_fleet::step::{Renewal, WorkerState};
use metaservice_fleet::tenants::{TenantLimits, TenantUse};
use metaservice_fleet::view::{LEASE, View};
use metaservice_web::{Depth, Fleet, Listing};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::rows;

/// How long changes are collected before the page gets them.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the depth of the queue is noted, and workers are looked at.
const TICK: Duration = Duration::from_secs(5);

/// How long to wait before a queue that cannot be read is read again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracker(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    view: View,
    /// The limits of tenants, for a view that begins anew.
    limits: BTreeMap<Tenant, TenantLimits>,
    workers: BTreeMap<WorkerName, (Instant, Renewal)>,
    depth: Depth,
}

impl Default for State {
    fn default() -> Self {
        let view = View::of_client();
        Self { view, limits: BTreeMap::new(), workers: BTreeMap::new(), depth: Depth::default() }
    }
}

impl State {
    /// Forgets the jobs: all of them are read again.
    fn begin(&mut self) {
        self.view = View::of_client();
        for (tenant, limits) in &self.limits {
            self.view.limit(tenant.clone(), *limits);
        }
    }

    fn limit(&mut self, tenant: Tenant, limits: TenantLimits) {
        self.limits.insert(tenant.clone(), limits);
        self.view.limit(tenant, limits);
    }
}

impl Tracker {
    /// Publishes the list of jobs after each change. Ends only with an error that lasts.
    pub(super) async fn follow_jobs(
        &self,
        queue: &Queue,
        lists: &watch::Sender<Listing>,
    ) -> ReadError {
        loop {
            let Err(error) = self.read_jobs(queue, lists).await;
            if matches!(error, ReadError::Denied(_)) {
                return error;
            }
            tracing::warn!(%error, "the queue cannot be read");
            sleep(RETRY).await;
        }
    }

    async fn read_jobs(
        &self,
        queue: &Queue,
        lists: &watch::Sender<Listing>,
    ) -> Result<std::convert::Infallible, ReadError> {
        let (mut steps, began) = (queue.steps().await?, Instant::now());
        self.lock().begin();
        loop {
            // A queue without jobs has a list too.
            if steps.is_caught_up() {
                self.0.changed.notify_one();
                lists.send_replace(rows::listing(&self.lock().view));
            }
            let step = steps.next().await?;
            self.apply(began, step);
            let settled = Instant::now() + SETTLE;
            while let Ok(step) = timeout_at(settled, steps.next()).await {
                self.apply(began, step?);
            }
        }
    }

    fn apply(&self, began: Instant, StoredStep { id, at, change }: StoredStep) {
        self.lock().view.apply(began.elapsed(), &id, at, change);
    }

    /// Publishes the workers and tenants. Ends only with an error that lasts.
    pub(super) async fn follow_fleet(
        &self,
        queue: &Queue,
        fleets: &watch::Sender<Fleet>,
    ) -> ReadError {
        let publishing = self.publish(fleets);
        tokio::pin!(publishing);
        loop {
            let read = tokio::select! {
                read = self.read_workers(queue) => read,
                never = &mut publishing => match never {},
            };
            let Err(error) = read;
            if matches!(error, ReadError::Denied(_)) {
                return error;
            }
            sleep(RETRY).await;
        }
    }

    async fn read_workers(&self, queue: &Queue) -> Result<std::convert::Infallible, ReadError> {
        let mut leases = queue.leases().await?;
        let mut limits = queue.limits().await?;
        let opened = Instant::now();
        loop {
            tokio::select! {
                renewed = leases.next() => {
                    let (stored, renewal) = renewed?;
                    // A renewal from before this reader is as old as the server says.
                    let seen = match leases.opened().saturating_sub(stored) {
                        0 => Instant::now(),
                        age => opened.checked_sub(Duration::from_millis(age)).unwrap_or(opened),
                    };
                    let mut state = self.lock();
                    match renewal.state {
                        WorkerState::Gone => drop(state.workers.remove(&renewal.worker)),
                        _ => drop(state.workers.insert(renewal.worker.clone(), (seen, renewal))),
                    }
                }
                limited = limits.next() => {
                    let (tenant, limits) = limited?;
                    self.lock().limit(tenant, limits);
                }
            }
            self.0.changed.notify_one();
        }
    }

    /// Publishes after each change, and notes the depth of the queue.
    async fn publish(&self, fleets: &watch::Sender<Fleet>) -> std::convert::Infallible {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.0.changed.notified() => sleep(SETTLE).await,
                _ = ticks.tick() => self.note_depth(),
            }
            let fleet = self.fleet();
            fleets.send_if_modified(|known| {
                let changed = *known != fleet;
                *known = fleet;
                changed
            });
        }
    }

    /// What a tenant uses, as far as the list of jobs is followed.
    pub(super) fn tenant(&self, tenant: &Tenant) -> TenantUse {
        self.lock().view.tenants().get(tenant).copied().unwrap_or_default()
    }

    fn note_depth(&self) {
        let mut state = self.lock();
        let (mut waiting, mut running) = (0, 0);
        for (_, job) in state.view.jobs() {
            match job.phase {
                Phase::Waiting { .. } => waiting += 1,
                Phase::Running { .. } => running += 1,
                _ => {}
            }
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        state.depth.add(now_ms, waiting, running);
    }

    fn fleet(&self) -> Fleet {
        let state = self.lock();
        let workers = state.workers.values();
        Fleet {
            workers: workers
                .map(|(seen, renewal)| rows::fleet_worker(renewal, seen.elapsed() > LEASE))
                .collect(),
            tenants: rows::fleet_tenants(&state.view),
            depth: state.depth.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_are_read_again_leave_the_limits() {
        let (mut state, tenant) = (State::default(), "t".parse::<Tenant>().unwrap());
        let limits: TenantLimits = serde_json::from_str(r#"{"running":3}"#).unwrap();
        state.limit(tenant.clone(), limits);
        state.begin();
        assert_eq!(state.view.tenants()[&tenant].limits.running, Some(3));
    }
}
