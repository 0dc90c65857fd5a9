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
        prop_oneof![Just(LostCause::Lease), Just(LostCause::Released), Just(LostCause::Machine)]
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
