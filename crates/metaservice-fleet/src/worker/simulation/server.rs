//! A model of the servers: steps with compare-and-set on job and number, and leases.

use std::collections::BTreeMap;

use crate::name::JobId;
use crate::state::{CANCELLATION, JobState, Phase, Stored};
use crate::step::{Change, Renewal};

/// The server's clock at the start, in milliseconds since 1970.
pub(super) const EPOCH: u64 = 3_600_000;

#[derive(Default)]
pub(super) struct Server {
    pub(super) steps: Vec<(JobId, Stored, Change)>,
    pub(super) leases: Vec<(u64, Renewal)>,
    pub(super) jobs: BTreeMap<JobId, JobState>,
    /// Who wrote each step.
    writers: BTreeMap<(JobId, u32), (u64, Change)>,
}

impl Server {
    /// Who wrote this step, and what.
    pub(super) fn step(&self, id: &JobId, number: u32) -> Option<&(u64, Change)> {
        self.writers.get(&(id.clone(), number))
    }

    /// The place of this step in the queue.
    pub(super) fn place(&self, id: &JobId, number: u32) -> Option<usize> {
        self.steps.iter().position(|(of, at, _)| of == id && at.number == number)
    }

    /// Stores a step if its number is free.
    pub(super) fn write(
        &mut self,
        time: u64,
        id: &JobId,
        number: u32,
        nonce: u64,
        change: &Change,
    ) {
        let key = (id.clone(), number);
        if self.writers.contains_key(&key) {
            return;
        }
        self.writers.insert(key, (nonce, change.clone()));
        let sequence = self.steps.len() as u64 + 1;
        let at = Stored { number, sequence, time: EPOCH + time };
        self.steps.push((id.clone(), at, change.clone()));
        let Some(job) = self.jobs.get_mut(id) else {
            let job = JobState::submitted(at, change.clone()).unwrap();
            self.jobs.insert(id.clone(), job);
            return;
        };
        let is_in_turn = job.next == number || number == CANCELLATION;
        assert!(is_in_turn, "a step of {id} before its turn");
        if let Change::Claimed { .. } = change {
            let waits = matches!(job.phase, Phase::Waiting { .. });
            assert!(waits || job.is_cancelled, "a claim of {id}: {job:?}");
            // A reader's clock is fast by one percent at most.
            let early = job.request.not_before.unwrap_or(0);
            assert!(at.time + 1000 + time / 50 >= early, "{id} starts too early");
        }
        let before = job.outcome().cloned();
        job.apply(at, Some(change.clone()));
        assert!(before.is_none() || job.outcome() == before.as_ref(), "{id} has two results");
        assert!(job.used <= job.request.attempts, "too many attempts of {id}");
    }
}
