//! What an event or a step adds to the metrics. No I/O, no clock.

use std::time::Duration;

use crate::state::{JobState, Stored};
use crate::step::{Change, ExceptionCause, LostCause, Outcome};
use crate::worker::types::Event;

/// A label that has one of a few values.
pub(super) type Word = &'static str;

/// The kinds of machines that attempts get: one that waited for a job, or one of its own.
pub(super) const MACHINES: [Word; 2] = ["warm", "cold"];

/// The kinds of results that a worker writes.
pub(super) const RESULTS: [Word; 4] = ["succeeded", "failed", "cancelled", "exception"];

/// The kinds of a result of the queue, each with the cause of an exception.
pub(super) const QUEUE_RESULTS: [(Word, Word); 11] = [
    ("succeeded", ""),
    ("failed", ""),
    ("cancelled", ""),
    ("exception", "lease"),
    ("exception", "released"),
    ("exception", "machine"),
    ("exception", "output"),
    ("exception", "refused"),
    ("exception", "deadline"),
    ("exception", "artifacts"),
    ("unknown", ""),
];

/// Why an attempt of this worker has no result.
pub(super) const LOSSES: [Word; 6] =
    ["lease", "released", "machine", "output", "refused", "dropped"];

/// What is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// An attempt begins here, this long after its job could run.
    Began(Duration),
    /// An attempt got a machine: a warm or a cold one.
    Started(Word),
    /// Its first output came, this long after the claim.
    Output(Duration),
    /// An attempt has a result, this long after the claim.
    Result { kind: Word, ran: Duration, log: u64, artifacts: u64 },
    /// An attempt has none.
    Lost(Word),
    /// A job of the queue has ended, at any worker.
    QueueResult(Word, Word),
    /// An attempt of the queue was lost, at any worker.
    QueueLost(Word),
}

/// What an event of this worker adds.
pub(super) fn of_event(event: &Event) -> Option<Count> {
    match event {
        Event::Claimed { waited, .. } => Some(Count::Began(*waited)),
        Event::Started { warm: true, .. } => Some(Count::Started("warm")),
        Event::Started { .. } => Some(Count::Started("cold")),
        Event::Output { after, .. } => Some(Count::Output(*after)),
        Event::Ended { outcome, ran, .. } => {
            let (log, artifacts) = match outcome {
                Outcome::Finished { log, artifacts, .. } => {
                    let sizes = artifacts
                        .iter()
                        .filter_map(|artifact| Some(artifact.object.as_ref()?.bytes));
                    (*log, sizes.fold(0, u64::saturating_add))
                }
                _ => (0, 0),
            };
            Some(Count::Result { kind: kind(outcome).0, ran: *ran, log, artifacts })
        }
        Event::Lost { cause, .. } => Some(Count::Lost(loss(*cause))),
        Event::Dropped { .. } => Some(Count::Lost("dropped")),
        _ => None,
    }
}

/// The job after a step. `None`: there is none.
pub(super) fn after(
    before: Option<&JobState>,
    at: Stored,
    change: Option<&Change>,
) -> Option<JobState> {
    match before {
        None => JobState::submitted(at, change?.clone()),
        Some(before) => {
            let mut job = before.clone();
            job.apply(at, change.cloned());
            Some(job)
        }
    }
}

/// What a step of the queue adds.
pub(super) fn of_step(
    before: Option<&JobState>,
    after: Option<&JobState>,
    change: Option<&Change>,
) -> Vec<Count> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    let mut counts = Vec::new();
    if let Some(Change::Lost { cause, .. }) = change
        && before.phase != after.phase
    {
        counts.push(Count::QueueLost(loss(*cause)));
    }
    if let (None, Some(outcome)) = (before.outcome(), after.outcome()) {
        let (kind, cause) = kind(outcome);
        counts.push(Count::QueueResult(kind, cause));
    }
    counts
}

/// The kind of a result, and the cause of an exception.
fn kind(outcome: &Outcome) -> (Word, Word) {
    match outcome {
        Outcome::Finished { status: 0, .. } => ("succeeded", ""),
        Outcome::Finished { .. } => ("failed", ""),
        Outcome::Cancelled => ("cancelled", ""),
        Outcome::Exception { cause: ExceptionCause::Lost(cause), .. } => {
            ("exception", loss(*cause))
        }
        Outcome::Exception { cause: ExceptionCause::Deadline, .. } => ("exception", "deadline"),
        Outcome::Exception { cause: ExceptionCause::Artifacts, .. } => ("exception", "artifacts"),
        Outcome::Unknown => ("unknown", ""),
    }
}

fn loss(cause: LostCause) -> Word {
    match cause {
        LostCause::Lease => "lease",
        LostCause::Released => "released",
        LostCause::Machine => "machine",
        LostCause::Output => "output",
        LostCause::Refused => "refused",
    }
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::spec::JobSpec;

    use super::*;
    use crate::request::Request;
    use crate::step::{Artifact, Digest, Object};

    const SECOND: Duration = Duration::from_secs(1);

    fn artifact(bytes: u64) -> Artifact {
        let (name, digest) = ("a".into(), Digest(String::new()));
        let object = Some(Object { name, bytes, digest, store: None });
        Artifact { path: "a".into(), object, is_directory: false, error: None }
    }

    fn ended(outcome: Outcome) -> Option<Count> {
        of_event(&Event::Ended { id: "a".parse().unwrap(), attempt: 1, outcome, ran: SECOND })
    }

    #[test]
    fn an_attempt_counts_once_with_its_bytes() {
        let (id, attempt) = ("a".parse().unwrap(), 1);
        let claimed = Event::Claimed { id, attempt, waited: SECOND };
        assert_eq!(of_event(&claimed), Some(Count::Began(SECOND)));
        let started = Event::Started { id: "a".parse().unwrap(), attempt, warm: true };
        assert_eq!(of_event(&started), Some(Count::Started("warm")));
        let artifacts = vec![artifact(3), artifact(4)];
        let finished = ended(Outcome::Finished { status: 0, log: 5, log_object: None, artifacts });
        let kind = "succeeded";
        assert_eq!(finished, Some(Count::Result { kind, ran: SECOND, log: 5, artifacts: 7 }));
        let failed =
            ended(Outcome::Finished { status: 1, log: 0, log_object: None, artifacts: vec![] });
        let count = |kind| Some(Count::Result { kind, ran: SECOND, log: 0, artifacts: 0 });
        assert_eq!(failed, count("failed"));
        assert_eq!(ended(Outcome::Cancelled), count("cancelled"));
        let large = vec![artifact(u64::MAX), artifact(u64::MAX)];
        let large =
            ended(Outcome::Finished { status: 0, log: 0, log_object: None, artifacts: large });
        assert!(matches!(large, Some(Count::Result { artifacts: u64::MAX, .. })));
        let dropped = Event::Dropped { id: "a".parse().unwrap(), attempt };
        assert_eq!(of_event(&dropped), Some(Count::Lost("dropped")));
        assert_eq!(of_event(&Event::Ready), None);
    }

    /// What the steps of a job with two attempts add.
    fn counts(changes: impl IntoIterator<Item = Change>) -> Vec<Count> {
        let submitted = Change::Submitted(Box::new(Request::new(JobSpec::new(["true"]))));
        let mut job = None;
        let mut counts = Vec::new();
        for (number, change) in (0..).zip([submitted].into_iter().chain(changes)) {
            let at = Stored { number, sequence: 1, time: 1 };
            let next = after(job.as_ref(), at, Some(&change));
            counts.extend(of_step(job.as_ref(), next.as_ref(), Some(&change)));
            job = next;
        }
        counts
    }

    fn claimed() -> Change {
        Change::Claimed { worker: "w".parse().unwrap(), run: "r".parse().unwrap() }
    }

    fn lost(cause: LostCause) -> Change {
        Change::Lost { cause, message: String::new() }
    }

    #[test]
    fn a_job_of_the_queue_ends_once() {
        let machine = [claimed(), lost(LostCause::Machine), claimed(), lost(LostCause::Lease)];
        let late = [lost(LostCause::Lease), Change::Ended(Outcome::Cancelled), claimed()];
        assert_eq!(
            counts(machine.into_iter().chain(late)),
            [
                Count::QueueLost("machine"),
                Count::QueueLost("lease"),
                Count::QueueResult("exception", "lease"),
            ],
        );
        let deadline = Count::QueueResult("exception", "deadline");
        assert_eq!(counts([Change::Expired, Change::Expired]), [deadline]);
        let cancelled = counts([claimed(), Change::Cancelled, lost(LostCause::Output)]);
        let cancelled_result = Count::QueueResult("cancelled", "");
        assert_eq!(cancelled, [Count::QueueLost("output"), cancelled_result]);
    }

    #[test]
    fn each_kind_and_cause_is_a_series_from_the_start() {
        let causes = [LostCause::Lease, LostCause::Released, LostCause::Machine, LostCause::Output];
        for cause in causes.into_iter().chain([LostCause::Refused]) {
            assert!(LOSSES.contains(&loss(cause)));
            let cause = ExceptionCause::Lost(cause);
            let exception = Outcome::Exception { cause, message: String::new() };
            assert!(QUEUE_RESULTS.contains(&kind(&exception)), "{cause:?}");
        }
    }
}
