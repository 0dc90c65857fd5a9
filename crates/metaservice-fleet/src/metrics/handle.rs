//! What the worker writes and the end-point reads.

use std::sync::{Arc, Mutex};

use metaservice_private::lock;
use tokio::time::Instant;

use super::condition::{Condition, Readiness};
use super::counts;
use super::depths::Depths;
use super::exported::Exported;
use crate::name::WorkerName;
use crate::queue::StoredStep;
use crate::state::JobState;
use crate::worker::idle::Reason;
use crate::worker::types::Event;

/// The metrics of one worker. Clones are the same metrics.
///
/// Give them to the worker with [`Events`](crate::worker::Events). They are counted from zero since
/// their creation, and take memory for each tenant with a job that waits.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    exported: Exported,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    depths: Depths,
    condition: Condition,
    confirmed: Option<Instant>,
    idle: Option<Reason>,
}

impl Metrics {
    /// Metrics of a worker with this name, which runs so many jobs at once.
    #[must_use]
    pub fn new(worker: &WorkerName, slots: u32) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { exported: Exported::new(worker, slots), state }))
    }

    /// All metrics, as OpenMetrics text. It has at most
    /// [`MAX_TENANTS`](super::MAX_TENANTS) and one tenants.
    #[must_use]
    pub fn text(&self) -> String {
        let (depths, condition, confirmed, idle) = {
            let mut state = lock(&self.0.state);
            (state.depths.sample(), state.condition, state.confirmed, state.idle)
        };
        self.0.exported.text(depths, condition, confirmed.map(|at| at.elapsed()), idle)
    }

    /// Whether the worker takes jobs.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        lock(&self.0.state).condition.readiness()
    }

    pub(crate) fn event(&self, event: &Event) {
        lock(&self.0.state).condition.event(event);
        if let Some(count) = counts::of_event(event) {
            self.0.exported.add(count);
        }
    }

    /// Takes a step of a job that was so before. What was there before the worker began is history,
    /// and not counted.
    pub(crate) fn step(&self, before: Option<&JobState>, step: &StoredStep) {
        let change = step.change.as_ref();
        let after = counts::after(before, step.at, change);
        let has_begun = {
            let mut state = lock(&self.0.state);
            state.depths.moved(before, after.as_ref());
            state.condition.has_begun
        };
        if has_begun {
            let counts = counts::of_step(before, after.as_ref(), change);
            counts.into_iter().for_each(|count| self.0.exported.add(count));
        }
    }

    /// Takes why the worker takes no job.
    pub(crate) fn idle(&self, reason: Option<Reason>) {
        lock(&self.0.state).idle = reason;
    }

    /// Takes the time at which a renewal was sent that a server confirmed.
    pub(crate) fn confirmed(&self, sent: Instant) {
        let mut state = lock(&self.0.state);
        state.confirmed = state.confirmed.max(Some(sent));
    }
}
