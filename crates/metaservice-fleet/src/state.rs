//! One job: what its steps make of it. No I/O, no clock.

use std::sync::Arc;

use crate::name::{RunId, WorkerName};
use crate::request::Request;
use crate::step::{Change, ExceptionCause, LostCause, Outcome};

/// Milliseconds since 1970, of the server's clock: the time at which it stored a step.
pub type ServerTime = u64;

/// How long a job waits after its first lost attempt, in milliseconds. The time doubles with each.
pub const FIRST_PAUSE: u64 = 1_000;

/// The longest time that a job waits after a lost attempt, in milliseconds.
pub const MAX_PAUSE: u64 = 60_000;

/// The number of a client's cancellation. It is none of the steps that workers count, so a client
/// needs no right to write those. Its place in the bucket decides what it finds.
pub const CANCELLATION: u32 = u32::MAX;

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobState {
    /// What its client asked for.
    pub request: Arc<Request>,
    /// When it was submitted.
    pub submitted: ServerTime,
    /// The number of the next step.
    pub next: u32,
    /// The last attempt, from 1. Zero: it was never claimed. This is its fencing token.
    pub attempt: u32,
    /// The attempts that count towards its limit.
    pub used: u32,
    /// Whether a client has cancelled it.
    pub is_cancelled: bool,
    /// Whether a later version wrote a step of it that this version cannot read. What follows is
    /// shown as far as this version knows it, and no worker of this version touches the job.
    pub has_unknown_step: bool,
    /// Why the attempt before was lost.
    pub last_loss: Option<(LostCause, String)>,
    /// Where it is.
    pub phase: Phase,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It waits for a worker since this time and place in the queue.
    Waiting {
        /// The time.
        since: ServerTime,
        /// The sequence number of its last step: a job that waits again is behind the others.
        place: u64,
        /// No worker claims it before: a lost attempt is repeated after a pause.
        earliest: ServerTime,
    },
    /// A worker runs it.
    Running {
        /// The worker.
        worker: WorkerName,
        /// Its life.
        run: RunId,
        /// Since when.
        since: ServerTime,
    },
    /// It has its result.
    Ended {
        /// The result.
        outcome: Outcome,
        /// When it came.
        at: ServerTime,
        /// The worker that wrote it, if one did.
        worker: Option<WorkerName>,
    },
}

/// Where a server stored a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The number of the step in its job.
    pub number: u32,
    /// The sequence number in the bucket.
    pub sequence: u64,
    /// When.
    pub time: ServerTime,
}

impl JobState {
    /// The job that step zero makes; `None` if the step is no valid submission.
    #[must_use]
    pub fn submitted(at: Stored, change: Change) -> Option<Self> {
        let Change::Submitted(request) = change else { return None };
        if at.number != 0 || request.check().is_err() {
            return None;
        }
        Some(Self {
            request: Arc::new(*request),
            submitted: at.time,
            next: 1,
            attempt: 0,
            used: 0,
            is_cancelled: false,
            has_unknown_step: false,
            last_loss: None,
            phase: Phase::Waiting { since: at.time, place: at.sequence, earliest: 0 },
        })
    }

    /// Takes the next step. Returns whether it changed the job. A step that is not possible in this
    /// state takes its number and changes nothing, so that all readers agree. `None`: a step that
    /// this version cannot read. From then on the job is one of a later version.
    pub fn apply(&mut self, at: Stored, change: Option<Change>) -> bool {
        if at.number == CANCELLATION {
            return self.cancel(at);
        }
        if at.number != self.next {
            return false;
        }
        self.next += 1;
        let Some(change) = change else { return self.unknown() };
        if self.has_unknown_step {
            return self.follow(at, change);
        }
        match (&self.phase, change) {
            (Phase::Waiting { .. }, Change::Claimed { worker, run }) => {
                self.attempt += 1;
                self.used += 1;
                self.phase = Phase::Running { worker, run, since: at.time };
            }
            (_, Change::Cancelled) => return self.cancel(at),
            (Phase::Waiting { .. }, Change::Expired) => {
                let cause = ExceptionCause::Deadline;
                self.end(at, Outcome::Exception { cause, message: String::new() });
            }
            (Phase::Running { .. }, Change::Ended(outcome)) => self.end(at, outcome),
            (Phase::Running { .. }, Change::Lost { cause, message }) => {
                self.lost(at, cause, message);
            }
            _ => return false,
        }
        true
    }

    fn unknown(&mut self) -> bool {
        let is_news = self.outcome().is_none() && !self.has_unknown_step;
        self.has_unknown_step |= is_news;
        is_news
    }

    /// Takes a step behind one that this version cannot read. Its writer could read that one,
    /// so it is possible, unless a cancellation came between.
    fn follow(&mut self, at: Stored, change: Change) -> bool {
        match change {
            _ if self.outcome().is_some() => return false,
            Change::Claimed { worker, run } => {
                self.attempt += 1;
                self.phase = Phase::Running { worker, run, since: at.time };
            }
            Change::Lost { cause, message } => {
                self.last_loss = Some((cause, message));
                let earliest = at.time;
                self.phase = Phase::Waiting { since: at.time, place: at.sequence, earliest };
            }
            Change::Ended(outcome) => self.end(at, outcome),
            Change::Cancelled => return self.cancel(at),
            Change::Submitted(_) | Change::Expired => return false,
        }
        true
    }

    fn cancel(&mut self, at: Stored) -> bool {
        if self.is_cancelled || self.outcome().is_some() {
            return false;
        }
        self.is_cancelled = true;
        // Behind an unknown step, only a later version knows whether the job waits.
        if matches!(self.phase, Phase::Waiting { .. }) && !self.has_unknown_step {
            self.end(at, Outcome::Cancelled);
        }
        true
    }

    fn lost(&mut self, at: Stored, cause: LostCause, message: String) {
        if cause == LostCause::Released {
            self.used -= 1;
        }
        if self.is_cancelled {
            self.end(at, Outcome::Cancelled);
        } else if self.used >= self.request.attempts {
            let cause = ExceptionCause::Lost(cause);
            self.end(at, Outcome::Exception { cause, message });
        } else {
            self.last_loss = Some((cause, message));
            let earliest = at.time.saturating_add(pause(cause, self.used));
            self.phase = Phase::Waiting { since: at.time, place: at.sequence, earliest };
        }
    }

    fn end(&mut self, at: Stored, outcome: Outcome) {
        let worker = match &self.phase {
            Phase::Running { worker, .. } => Some(worker.clone()),
            _ => None,
        };
        self.phase = Phase::Ended { outcome, at: at.time, worker };
    }

    /// No worker claims it before: by its request, or after a lost attempt. `None`: any may now.
    #[must_use]
    pub fn earliest(&self) -> Option<ServerTime> {
        let after_loss = match self.phase {
            Phase::Waiting { earliest, .. } => Some(earliest),
            _ => None,
        };
        after_loss.filter(|earliest| *earliest > 0).max(self.request.not_before)
    }

    /// Since when a waiting job could run: it waits since then, or it may not start before. For
    /// another job, since it was submitted.
    #[must_use]
    pub fn could_run_since(&self) -> ServerTime {
        let since = match &self.phase {
            Phase::Waiting { since, .. } => *since,
            _ => self.submitted,
        };
        since.max(self.request.not_before.unwrap_or_default())
    }

    /// The result, once there is one.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// Whether this life of a worker runs this attempt of the job, as far as all versions agree.
    #[must_use]
    pub fn is_run_by(&self, owner: &RunId, attempt: u32) -> bool {
        matches!(&self.phase, Phase::Running { run, .. } if run == owner)
            && self.attempt == attempt
            && !self.has_unknown_step
    }

    /// Whether it has no result, and only a later version knows what may be written for it.
    #[must_use]
    pub fn is_of_later_version(&self) -> bool {
        self.has_unknown_step && self.outcome().is_none()
    }
}

/// How long a job waits after an attempt that was lost, if so many count.
fn pause(cause: LostCause, used: u32) -> u64 {
    if cause == LostCause::Released {
        return 0;
    }
    let doublings = used.saturating_sub(1).min(MAX_PAUSE.ilog2());
    (FIRST_PAUSE << doublings).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::spec::JobSpec;
    use proptest::prelude::*;

    use super::*;

    fn at(number: u32) -> Stored {
        Stored { number, sequence: u64::from(number) + 10, time: u64::from(number) * 1000 }
    }

    fn job(attempts: u32) -> JobState {
        let mut request = Request::new(JobSpec::new(["true"]));
        request.attempts = attempts;
        JobState::submitted(at(0), Change::Submitted(Box::new(request))).unwrap()
    }

    fn claimed() -> Change {
        let (worker, run) = ("w".parse().unwrap(), "r".parse().unwrap());
        Change::Claimed { worker, run }
    }

    fn lost(cause: LostCause) -> Change {
        Change::Lost { cause, message: "m".to_owned() }
    }

    fn finished(status: u8) -> Outcome {
        Outcome::Finished { status, log: 0, log_object: None, artifacts: Vec::new() }
    }

    fn after(mut job: JobState, changes: impl IntoIterator<Item = Change>) -> JobState {
        for change in changes {
            let next = job.next;
            job.apply(at(next), Some(change));
        }
        job
    }

    #[test]
    fn a_cancellation_counts_at_its_place_and_takes_no_number() {
        let cancelled = at(CANCELLATION);
        let mut waiting = job(2);
        assert!(waiting.apply(cancelled, Some(Change::Cancelled)));
        assert!(!waiting.apply(cancelled, Some(Change::Cancelled)));
        let late = after(waiting, [claimed()]);
        assert_eq!((late.outcome(), late.next), (Some(&Outcome::Cancelled), 2));
        let mut running = after(job(2), [claimed()]);
        assert!(running.apply(cancelled, Some(Change::Cancelled)));
        assert!(running.is_cancelled && running.outcome().is_none());
        let ended = after(running, [Change::Ended(finished(1))]);
        assert_eq!((ended.outcome(), ended.next), (Some(&finished(1)), 3));
    }

    #[test]
    fn the_first_result_is_the_only_one() {
        let ended = after(job(2), [claimed(), Change::Ended(finished(3))]);
        assert_eq!(ended.outcome(), Some(&finished(3)));
        let again = after(
            ended,
            [Change::Ended(finished(0)), Change::Cancelled, claimed(), lost(LostCause::Lease)],
        );
        assert_eq!(again.outcome(), Some(&finished(3)));
        assert_eq!((again.attempt, again.next), (1, 7));
    }

    #[test]
    fn a_lost_attempt_is_repeated_until_none_is_left() {
        let once = after(job(2), [claimed(), lost(LostCause::Lease)]);
        assert_eq!(once.phase, Phase::Waiting { since: 2000, place: 12, earliest: 3000 });
        let twice = after(once, [claimed(), lost(LostCause::Machine)]);
        let cause = ExceptionCause::Lost(LostCause::Machine);
        assert_eq!(twice.outcome(), Some(&Outcome::Exception { cause, message: "m".to_owned() }));
    }

    #[test]
    fn a_job_waits_since_it_could_run() {
        let mut job = job(2);
        assert_eq!(job.could_run_since(), 0);
        job = after(job, [claimed(), lost(LostCause::Lease)]);
        assert_eq!(job.could_run_since(), 2000);
        Arc::make_mut(&mut job.request).not_before = Some(9000);
        assert_eq!(job.could_run_since(), 9000);
    }

    #[test]
    fn an_attempt_that_was_given_back_does_not_count() {
        let released = [claimed(), lost(LostCause::Released)];
        let job = after(job(1), released.into_iter().cycle().take(20));
        assert_eq!((job.attempt, job.used), (10, 0));
        assert!(matches!(job.phase, Phase::Waiting { .. }));
    }

    #[test]
    fn each_loss_doubles_the_pause_up_to_a_minute() {
        let pauses: Vec<_> = (1..10).map(|used| pause(LostCause::Lease, used)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|seconds| seconds * 1000);
        assert_eq!(pauses, expected);
        assert_eq!(pause(LostCause::Machine, u32::MAX), MAX_PAUSE);
    }

    #[test]
    fn a_job_that_was_given_back_may_start_at_once() {
        let released = after(job(3), [claimed(), lost(LostCause::Released)]);
        assert!(matches!(released.phase, Phase::Waiting { since: 2000, earliest: 2000, .. }));
        let again = after(released, [claimed(), lost(LostCause::Machine)]);
        assert_eq!(again.earliest(), Some(5000));
    }

    #[test]
    fn the_later_of_the_request_and_the_pause_counts() {
        let waiting = after(job(3), [claimed(), lost(LostCause::Machine)]);
        for (not_before, earliest) in [(None, 3000), (Some(10), 3000), (Some(9000), 9000)] {
            let mut job = waiting.clone();
            std::sync::Arc::make_mut(&mut job.request).not_before = not_before;
            assert_eq!(job.earliest(), Some(earliest));
        }
    }

    #[test]
    fn a_cancelled_job_never_waits_again() {
        assert_eq!(after(job(2), [Change::Cancelled]).outcome(), Some(&Outcome::Cancelled));
        let running = after(job(2), [claimed(), Change::Cancelled]);
        assert!(running.is_cancelled && running.outcome().is_none());
        let gone = after(running, [lost(LostCause::Lease)]);
        assert_eq!(gone.outcome(), Some(&Outcome::Cancelled));
    }

    #[test]
    fn only_the_next_step_counts_and_an_unknown_one_takes_its_number() {
        let mut job = job(2);
        assert!(!job.apply(at(2), Some(claimed())));
        assert!(job.apply(at(1), None));
        assert!(!job.apply(at(1), Some(claimed())));
        assert!(job.apply(at(2), Some(claimed())));
        assert_eq!((job.next, job.attempt), (3, 1));
    }

    #[test]
    fn behind_an_unknown_step_only_a_result_is_final() {
        let unknown = |mut job: JobState| {
            let next = job.next;
            job.apply(at(next), None);
            job
        };
        let run = "r".parse().unwrap();
        let waiting = unknown(job(1));
        assert!(waiting.is_of_later_version());
        // Whether it waits, only a later version knows: neither of these ends it.
        for change in [Change::Cancelled, Change::Expired] {
            assert!(after(waiting.clone(), [change]).is_of_later_version());
        }
        let running = unknown(after(job(1), [claimed()]));
        assert!(!running.is_run_by(&run, 1), "its worker writes no more");
        let lost = after(running.clone(), [lost(LostCause::Lease)]);
        assert!(lost.is_of_later_version() && !lost.is_run_by(&run, 1));
        let again = after(lost, [claimed()]);
        assert!(!again.is_run_by(&run, 2) && again.attempt == 2);
        let ended = after(again, [Change::Ended(finished(3)), Change::Ended(finished(4))]);
        assert_eq!(ended.outcome(), Some(&finished(3)));
        let late = unknown(after(job(1), [claimed(), Change::Ended(finished(1))]));
        assert!(!late.is_of_later_version() && late.outcome() == Some(&finished(1)));
    }

    #[test]
    fn a_job_begins_with_a_valid_submission() {
        assert_eq!(JobState::submitted(at(0), claimed()), None);
        let request = Box::new(Request::new(JobSpec::new(Vec::<String>::new())));
        assert_eq!(JobState::submitted(at(0), Change::Submitted(request)), None);
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            Just(claimed()),
            Just(Change::Cancelled),
            Just(Change::Expired),
            (0_u8..3).prop_map(|status| Change::Ended(finished(status))),
            prop_oneof![
                Just(LostCause::Lease),
                Just(LostCause::Released),
                Just(LostCause::Machine)
            ]
            .prop_map(lost),
        ]
    }

    proptest! {
        #[test]
        fn no_steps_change_a_result_or_exceed_the_attempts(
            changes in proptest::collection::vec(change(), 0..40),
            attempts in 1_u32..4,
        ) {
            let mut job = job(attempts);
            let mut result = None;
            for change in changes {
                let next = job.next;
                job.apply(at(next), Some(change));
                prop_assert!(job.used <= attempts);
                prop_assert!(job.used <= job.attempt);
                if let Phase::Waiting { since, earliest, .. } = job.phase {
                    prop_assert!(earliest.saturating_sub(since) <= MAX_PAUSE);
                    let is_lost = job.last_loss.as_ref().is_some_and(|loss| loss.0 != LostCause::Released);
                    prop_assert_eq!(earliest > since, is_lost);
                }
                if let Some(result) = &result {
                    prop_assert_eq!(job.outcome(), Some(result));
                }
                result = job.outcome().cloned();
            }
        }
    }
}
