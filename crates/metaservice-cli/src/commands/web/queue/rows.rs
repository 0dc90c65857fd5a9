//! What the page shows of a queue. No I/O, no clock.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use metaservice::control::{Job, JobState as ControlState};
use metaservice_fleet::history::Attempt as PastAttempt;
use metaservice_fleet::name::JobId;
use metaservice_fleet::request::Priority;
use metaservice_fleet::state::{JobState, Phase};
use metaservice_fleet::step::{Outcome, Renewal, WorkerState};
use metaservice_fleet::tenants::TenantUse;
use metaservice_fleet::view::View;
use metaservice_web::{
    Artifact, Attempt, EndedJob, FleetTenant, FleetWorker, ListedJob, Listing, MAX_JOBS,
};
use serde_json::{Value, json};

use crate::commands::fleet::jobs::{state, worker};
use crate::commands::fleet::{exception, loss};

/// The list of a queue: the jobs that have not ended, and the youngest of those that have.
pub(super) fn listing(view: &View) -> Listing {
    let mut jobs: Vec<_> = view.jobs().collect();
    jobs.sort_unstable_by_key(|(_, job)| (job.outcome().is_some(), Reverse(job.submitted)));
    let more = jobs.len().saturating_sub(MAX_JOBS);
    let rows = jobs.into_iter().take(MAX_JOBS).map(|(id, job)| row(id, job));
    Listing::of_some(rows.collect(), more)
}

fn row(id: &JobId, job: &JobState) -> ListedJob {
    let (state, status) = state(job);
    let mut described = describe(id, job);
    described.status = status;
    let mut row = match job.phase {
        Phase::Ended { at, .. } => ListedJob::ended(&described, Some(at)),
        _ => ListedJob::running(&described),
    };
    state.clone_into(&mut row.state);
    row.label.clone_from(&job.request.spec.name);
    row.tenant = Some(job.request.tenant.to_string());
    row.priority = Some(
        match job.request.priority {
            Priority::High => "high",
            Priority::Low => "low",
            _ => "normal",
        }
        .to_owned(),
    );
    row.attempt = Some(job.attempt);
    row.worker = worker(job);
    row.queued_ms = Some(job.submitted);
    row
}

/// The job as far as the queue knows it. Its start is that of its last attempt: another attempt is
/// another job for the page, because its log is another one.
pub(super) fn describe(id: &JobId, job: &JobState) -> Job {
    let spec = &job.request.spec;
    let mut described = Job::lost(id.to_string());
    described.command.clone_from(&spec.command);
    described.env = spec.env.keys().cloned().collect();
    described.started_ms = started(job);
    described.machine = json!({ "image": spec.machine.image });
    described.state = match &job.phase {
        Phase::Waiting { .. } => ControlState::Waiting,
        Phase::Running { .. } => ControlState::Running,
        Phase::Ended { outcome: Outcome::Finished { status: 0, .. }, .. } => {
            ControlState::Succeeded
        }
        Phase::Ended { outcome: Outcome::Finished { .. }, .. } => ControlState::Failed,
        _ => ControlState::Lost,
    };
    if let Some(Outcome::Finished { status, .. }) = job.outcome() {
        described.status = Some(*status);
    }
    described
}

/// When the last attempt began, or else when the job was submitted.
pub(super) fn started(job: &JobState) -> u64 {
    job.claimed.unwrap_or(job.submitted)
}

/// The description of a job. As in the history of a host, values of variables are not shown.
pub(super) fn spec(job: &JobState) -> Value {
    let mut spec = job.request.spec.clone();
    spec.env.clear();
    json!(spec)
}

/// The attempts of a job.
pub(super) fn attempts(job: &JobState, all: &[PastAttempt]) -> Vec<Attempt> {
    let shown = |attempt: &PastAttempt| Attempt {
        number: attempt.number,
        worker: attempt.worker.to_string(),
        started_ms: Some(attempt.began),
        ended_ms: attempt.ended,
        outcome: match (&attempt.loss, attempt.ended) {
            (Some((cause, message)), _) => Some(with_message(loss(*cause), message)),
            (None, Some(_)) => Some(state(job).0.to_owned()),
            (None, None) => None,
        },
    };
    all.iter().map(shown).collect()
}

fn with_message(cause: &str, message: &str) -> String {
    if message.is_empty() { cause.to_owned() } else { format!("{cause}: {message}") }
}

/// An attempt that ended without the result of its job.
pub(super) fn ended_attempt(
    id: &JobId,
    job: &JobState,
    all: &[PastAttempt],
    one: &PastAttempt,
) -> EndedJob {
    let mut ended = EndedJob::of(describe(id, job));
    (ended.job.state, ended.job.status) = (ControlState::Lost, None);
    ended.job.started_ms = one.began;
    ended.ended_ms = one.ended;
    ended.end = Some("lost".to_owned());
    ended.error = one.loss.as_ref().map(|(cause, message)| with_message(loss(*cause), message));
    (ended.spec, ended.attempts, ended.attempt) = (spec(job), attempts(job, all), one.number);
    ended
}

/// A job that has ended.
pub(super) fn ended(id: &JobId, job: &JobState, all: &[PastAttempt]) -> EndedJob {
    let mut ended = EndedJob::of(describe(id, job));
    if let Phase::Ended { at, .. } = job.phase {
        ended.ended_ms = Some(at);
    }
    let (state, _) = state(job);
    ended.end = Some(state.to_owned());
    ended.error = match job.outcome() {
        Some(Outcome::Exception { cause, message }) => {
            Some(with_message(exception(*cause), message))
        }
        _ => None,
    };
    if let Some(Outcome::Finished { artifacts, .. }) = job.outcome() {
        ended.artifacts = artifacts.iter().enumerate().map(artifact).collect();
    }
    (ended.spec, ended.attempts, ended.attempt) = (spec(job), attempts(job, all), job.attempt);
    ended
}

fn artifact((number, artifact): (usize, &metaservice_fleet::step::Artifact)) -> Artifact {
    let last = Path::new(&artifact.path).file_name();
    let last = last.map_or_else(|| "artifact".into(), |name| name.to_string_lossy());
    let kind = if artifact.is_directory { ".tar" } else { "" };
    Artifact {
        path: artifact.path.clone(),
        to: None,
        bytes: artifact.object.as_ref().map(|object| object.bytes),
        error: artifact.error.clone(),
        name: artifact.object.as_ref().map(|_| format!("{}-{last}{kind}", number + 1)),
    }
}

/// The index of an artifact in its job, from its name.
pub(super) fn artifact_index(name: &str) -> Option<usize> {
    let (number, _) = name.split_once('-')?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// A worker.
pub(super) fn fleet_worker(renewal: &Renewal, is_lost: bool) -> FleetWorker {
    let state = match renewal.state {
        _ if is_lost => "lost",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Gone => "gone",
        WorkerState::Unknown => "unknown",
    };
    FleetWorker {
        name: renewal.worker.to_string(),
        state: state.to_owned(),
        slots: renewal.slots,
        running: renewal.running,
        warm: renewal.warm,
        reason: renewal.reason.clone(),
        labels: renewal.labels.iter().cloned().collect(),
    }
}

/// The tenants.
pub(super) fn fleet_tenants(view: &View) -> Vec<FleetTenant> {
    let tenants: BTreeMap<_, TenantUse> = view.tenants();
    let of = |(name, used): (_, TenantUse)| {
        let name: metaservice_fleet::name::Tenant = name;
        FleetTenant {
            name: name.to_string(),
            running: used.running.into(),
            waiting: used.waiting.into(),
            max_running: used.limits.running.map(u64::from),
            max_waiting: used.limits.waiting.map(u64::from),
        }
    };
    tenants.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metaservice_fleet::request::Request;
    use metaservice_fleet::state::Stored;
    use metaservice_fleet::step::{Change, ExceptionCause, LostCause};
    use metaservice_sandbox::spec::JobSpec;

    use super::*;

    fn at(number: u32, time: u64) -> Stored {
        Stored { number, sequence: time, time }
    }

    fn submitted() -> Change {
        let mut spec = JobSpec::new(["make", "test"]);
        spec.env.insert("TOKEN".to_owned(), "secret".to_owned());
        Change::Submitted(Box::new(Request::new(spec)))
    }

    fn claimed() -> Change {
        Change::Claimed { worker: "w".parse().unwrap(), run: "r".parse().unwrap() }
    }

    #[test]
    fn each_attempt_is_another_job_for_the_page() {
        let id: JobId = "a".parse().unwrap();
        let mut job = JobState::submitted(at(0, 10), submitted()).unwrap();
        assert_eq!((started(&job), row(&id, &job).state.as_str()), (10, "waiting"));
        job.apply(at(1, 20), Some(claimed()));
        let row = row(&id, &job);
        assert_eq!((started(&job), row.worker.as_deref(), row.attempt), (20, Some("w"), Some(1)));
        assert_eq!((row.queued_ms, row.tenant.as_deref()), (Some(10), Some("default")));
        let lost = Change::Lost { cause: LostCause::Machine, message: "no KVM".to_owned() };
        job.apply(at(2, 30), Some(lost.clone()));
        assert_eq!(started(&job), 20);
        job.apply(at(3, 2_000), Some(claimed()));
        assert_eq!(started(&job), 2_000);
        job.apply(at(4, 3_000), Some(lost));
        let ended = ended(&id, &job, &[]);
        assert_eq!(ended.error.as_deref(), Some("its machine failed: no KVM"));
        assert_eq!((ended.job.started_ms, ended.ended_ms), (2_000, Some(3_000)));
        assert!(!ended.spec.to_string().contains("secret"), "{}", ended.spec);
        assert_eq!(ended.job.env, ["TOKEN"]);
        let cause = ExceptionCause::Lost(LostCause::Machine);
        assert_eq!(exception(cause), "its machine failed");
    }

    #[test]
    fn jobs_that_run_are_listed_before_those_that_have_ended() {
        let mut view = View::of_client();
        let add = |view: &mut View, name: &str, number, time, change| {
            view.apply(Duration::ZERO, &name.parse().unwrap(), at(number, time), Some(change));
        };
        add(&mut view, "old", 0, 1, submitted());
        add(&mut view, "old", 1, 2, claimed());
        for number in 0..MAX_JOBS {
            let name = format!("ended-{number}");
            add(&mut view, &name, 0, 10, submitted());
            add(&mut view, &name, 1, 11, Change::Cancelled);
        }
        let listing = serde_json::to_value(listing(&view)).unwrap();
        assert_eq!((listing["more"].as_u64(), listing["known"].as_bool()), (Some(1), Some(true)));
        let jobs = listing["jobs"].as_array().unwrap();
        assert_eq!((jobs.len(), &jobs.last().unwrap()["name"]), (MAX_JOBS, &"old".into()));
    }

    #[test]
    fn an_artifact_is_found_by_its_name() {
        let left = |path: &str| metaservice_fleet::step::Artifact {
            path: path.to_owned(),
            object: None,
            is_directory: true,
            error: None,
        };
        assert_eq!(artifact((0, &left("/out"))).name, None);
        for (name, index) in [("1-out", Some(0)), ("12-a-b", Some(11)), ("0-a", None), ("a", None)]
        {
            assert_eq!(artifact_index(name), index, "{name}");
        }
    }
}
