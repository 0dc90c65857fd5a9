//! The attempts of one job, as its steps tell them.

use crate::name::WorkerName;
use crate::state::{JobState, Phase, ServerTime, Stored};
use crate::step::{Change, LostCause};

/// The most attempts that are kept: the last ones. Attempts that a worker gives back are not limited
/// in number.
const MAX_ATTEMPTS: usize = 100;

/// An attempt to run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// The worker.
    pub worker: WorkerName,
    /// When it began.
    pub began: ServerTime,
    /// When it ended. `None`: it runs.
    pub ended: Option<ServerTime>,
    /// Why it was lost. `None`: it runs, or it ended with the result of the job.
    pub loss: Option<(LostCause, String)>,
}

/// A job, and its attempts.
#[derive(Debug, Clone)]
pub(crate) struct History {
    state: JobState,
    attempts: Vec<Attempt>,
}

impl History {
    /// As [`JobState::submitted`].
    pub(crate) fn submitted(at: Stored, change: Change) -> Option<Self> {
        let state = JobState::submitted(at, change)?;
        Some(Self { state, attempts: Vec::new() })
    }

    /// As [`JobState::apply`].
    pub(crate) fn apply(&mut self, at: Stored, change: Option<Change>) -> bool {
        let loss = match &change {
            Some(Change::Lost { cause, message }) => Some((*cause, message.clone())),
            _ => None,
        };
        let (before, ran) = (self.state.attempt, self.runs());
        if !self.state.apply(at, change) {
            return false;
        }
        let open = self.attempts.last_mut().filter(|attempt| attempt.ended.is_none());
        if let Some(open) = open
            && (ran && !matches!(self.state.phase, Phase::Running { .. })
                || before < self.state.attempt)
        {
            open.ended = Some(at.time);
            open.loss = loss;
        }
        if before < self.state.attempt
            && let Phase::Running { worker, .. } = &self.state.phase
        {
            if self.attempts.len() >= MAX_ATTEMPTS {
                self.attempts.remove(0);
            }
            let (number, worker, began) = (self.state.attempt, worker.clone(), at.time);
            self.attempts.push(Attempt { number, worker, began, ended: None, loss: None });
        }
        true
    }

    fn runs(&self) -> bool {
        matches!(self.state.phase, Phase::Running { .. })
    }

    /// The job as it is now.
    pub(crate) const fn state(&self) -> &JobState {
        &self.state
    }

    /// Its attempts, the last ones of many.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::spec::JobSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::request::Request;
    use crate::step::Outcome;

    fn at(number: u32) -> Stored {
        Stored { number, sequence: number.into(), time: u64::from(number) * 10 }
    }

    fn history(attempts: u32, changes: impl IntoIterator<Item = Change>) -> History {
        let mut request = Request::new(JobSpec::new(["true"]));
        request.attempts = attempts;
        let mut history = History::submitted(at(0), Change::Submitted(Box::new(request))).unwrap();
        for change in changes {
            history.apply(at(history.state.next), Some(change));
        }
        history
    }

    fn claimed(worker: &str) -> Change {
        Change::Claimed { worker: worker.parse().unwrap(), run: "r".parse().unwrap() }
    }

    fn lost(cause: LostCause) -> Change {
        Change::Lost { cause, message: "m".to_owned() }
    }

    fn finished() -> Change {
        let artifacts = Vec::new();
        Change::Ended(Outcome::Finished { status: 1, log: 0, log_object: None, artifacts })
    }

    #[test]
    fn each_attempt_has_its_worker_and_its_end() {
        let history = history(
            3,
            [claimed("a"), lost(LostCause::Machine), finished(), claimed("b"), finished()],
        );
        let rows: Vec<_> = history
            .attempts()
            .iter()
            .map(|attempt| (attempt.number, attempt.worker.as_str(), attempt.began, attempt.ended))
            .collect();
        // The result behind the loss is no possible step, and takes a number.
        assert_eq!(rows, [(1, "a", 10, Some(20)), (2, "b", 40, Some(50))]);
        assert_eq!(history.attempts()[0].loss, Some((LostCause::Machine, "m".to_owned())));
        assert_eq!(history.attempts()[1].loss, None);
    }

    #[test]
    fn the_last_attempts_are_kept() {
        let each = [claimed("a"), lost(LostCause::Released)];
        let history = history(1, (0..150).flat_map(|_| each.clone()));
        let numbers: Vec<_> = history.attempts().iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, Vec::from_iter(51..=150));
    }

    proptest! {
        /// Whatever the steps are, only the last attempt can run, and it does if the job does.
        #[test]
        fn at_most_the_last_attempt_runs(
            steps in prop::collection::vec(0..6, 0..30), attempts in 1u32..5,
        ) {
            let changes = steps.into_iter().map(|step| match step {
                0 | 1 => claimed("a"),
                2 => lost(LostCause::Lease),
                3 => lost(LostCause::Released),
                4 => finished(),
                _ => Change::Cancelled,
            });
            let history = history(attempts, changes);
            let open: Vec<_> =
                history.attempts().iter().filter(|attempt| attempt.ended.is_none()).collect();
            let last = history.attempts().last();
            let numbers: Vec<_> = history.attempts().iter().map(|one| one.number).collect();
            prop_assert_eq!(numbers, Vec::from_iter(1..=history.state().attempt));
            prop_assert_eq!(open.len(), usize::from(history.runs()));
            prop_assert!(open.iter().all(|attempt| Some(*attempt) == last));
        }
    }
}
