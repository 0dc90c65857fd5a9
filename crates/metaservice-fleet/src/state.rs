//! One job: what its steps make of it. No I/O, no clock.

use std::sync::Arc;

use crate::name::{RunId, WorkerName};
use crate::request::Request;
use crate::requirement::{Features, Requirement};
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
    /// What it needs of its worker, as its request says it.
    needs: Arc<[Requirement]>,
    /// When it was submitted.
    pub submitted: ServerTime,
    /// The number of the next step.
    pub next: u32,
    /// The last attempt, from 1. Zero: it was never claimed. This is its fencing token.
    pub attempt: u32,
    /// When the last attempt began.
    pub claimed: Option<ServerTime>,
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
        if at.number != 0 || request.check_form().is_err() {
            return None;
        }
        Some(Self {
            needs: request.requirements().into(),
            request: Arc::new(*request),
            submitted: at.time,
            next: 1,
            attempt: 0,
            claimed: None,
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
                self.claimed = Some(at.time);
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
                self.claimed = Some(at.time);
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

    /// What it needs of its worker.
    #[must_use]
    pub fn needs(&self) -> &[Requirement] {
        &self.needs
    }

    /// Whether a worker with these features takes it.
    #[must_use]
    pub fn is_met_by(&self, features: &Features) -> bool {
        self.needs.iter().all(|need| features.has(need))
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
mod tests;
