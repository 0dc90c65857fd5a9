//! What must hold after a run with faults.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use metaservice_fleet::log::Stream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError, Steps, StoredStep};
use metaservice_fleet::state::{CANCELLATION, JobState, Phase, Stored};
use metaservice_fleet::step::{Change, Outcome};

use super::fake::Script;
use super::faults::Record;
use super::process::journal;

/// How long a worker that was stopped may take to notice, in milliseconds.
const GRACE: u64 = 2_000;

/// One run of an attempt on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) worker: String,
    pub(crate) begin: u64,
    /// `None`: its worker was killed.
    pub(crate) end: Option<u64>,
}

pub(crate) type Runs = BTreeMap<(String, u32), Ran>;

/// What the workers noted. An attempt that began twice is an error.
pub(crate) fn runs(root: &Path) -> Runs {
    let mut runs = Runs::new();
    for line in std::fs::read_to_string(journal(root)).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, attempt, worker, what, time] = words[..] else { panic!("{line}") };
        let key = (id.to_owned(), attempt.parse().unwrap());
        let time = time.parse().unwrap();
        if what == "begin" {
            let ran = Ran { worker: worker.to_owned(), begin: time, end: None };
            let before = runs.insert(key, ran);
            assert_eq!(before, None, "attempt {attempt} of {id} ran twice");
        } else {
            runs.get_mut(&key).expect("it began").end = Some(time);
        }
    }
    runs
}

/// When a run was over: it ended, or its worker was killed.
fn end(ran: &Ran, record: &Record) -> u64 {
    let killed = || {
        let kills = record.kills.get(&ran.worker)?;
        kills.iter().copied().find(|kill| *kill >= ran.begin)
    };
    ran.end.or_else(killed).unwrap_or(u64::MAX)
}

/// Whether a run was over at this time, or was stopped then and noticed as soon as it continued.
pub(crate) fn is_over(ran: &Ran, record: &Record, time: u64) -> bool {
    let end = end(ran, record);
    let stops = record.stops.get(&ran.worker).into_iter().flatten();
    end <= time
        || stops.into_iter().any(|(from, to)| *from <= time && end <= to.saturating_add(GRACE))
}

/// Each attempt begins after the one before, and none continues after the job has ended.
pub(crate) fn no_two_at_once(runs: &Runs, course: &Course, record: &Record) {
    for ((id, attempt), ran) in runs {
        let next = (id.clone(), attempt + 1)..(id.clone(), u32::MAX);
        if let Some(((_, later), after)) = runs.range(next).next() {
            let over = is_over(ran, record, after.begin);
            assert!(over, "attempts {attempt} and {later} of {id}: {ran:?}, {after:?}");
        }
        let key = id.parse::<JobId>().unwrap();
        let (job, steps) = (&course.jobs[&key], &course.steps[&key]);
        let Phase::Ended { at, .. } = &job.phase else { panic!("{id} has no result") };
        // The clock of the servers has milliseconds, and cuts the rest off.
        let over = is_over(ran, record, at + 1);
        assert!(over, "attempt {attempt} of {id} after {at}: {ran:?}, {steps:?}");
        assert!(ran.begin <= at + 1, "attempt {attempt} of {id} began after {at}: {ran:?}");
    }
}

/// What the steps of all jobs make of them.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) jobs: HashMap<JobId, JobState>,
    /// All steps of each job, as they are stored.
    steps: HashMap<JobId, Vec<(Stored, Change)>>,
    results: HashMap<JobId, u32>,
}

impl Course {
    /// Reads all steps until so many jobs have ended. Each has one result.
    pub(crate) async fn read(&mut self, queue: &Queue, count: usize) {
        let mut steps = opened(queue).await;
        while self.jobs.values().filter(|job| job.outcome().is_some()).count() < count {
            // The servers may be down.
            if let Ok(step) = steps.next().await {
                self.take(step);
            }
        }
        assert!(self.results.values().all(|count| *count <= 1), "a job has two results");
    }

    fn take(&mut self, step: StoredStep) {
        let StoredStep { id, at, change } = step;
        let change = change.expect("a step of this version");
        self.steps.entry(id.clone()).or_default().push((at, change.clone()));
        let is_result = matches!(change, Change::Ended(_));
        *self.results.entry(id.clone()).or_default() += u32::from(is_result);
        let Some(job) = self.jobs.get_mut(&id) else {
            let job = JobState::submitted(at, change).expect("a submission is first");
            self.jobs.insert(id, job);
            return;
        };
        let is_in_order = at.number == job.next || at.number == CANCELLATION;
        assert!(is_in_order, "the steps of {id} have no gap");
        job.apply(at, Some(change));
    }
}

/// A reader of all steps. A server that is stopped does not answer in time.
async fn opened(queue: &Queue) -> Steps {
    loop {
        match queue.steps().await {
            Err(ReadError::Server(error)) => eprintln!("no reader yet: {error}"),
            opened => return opened.unwrap(),
        }
    }
}

/// The result of a job is that of its last attempt, and its log has each byte of it.
pub(crate) async fn has_its_log(queue: &Queue, id: &JobId, job: &JobState) {
    let script = Script::of(id.as_str(), job.attempt);
    let Some(Outcome::Finished { status, log, .. }) = job.outcome() else {
        assert!(job.is_cancelled, "{id}: {:?}", job.phase);
        return;
    };
    assert_eq!(*status, script.status, "the status of {id}");
    let mut reader = queue.log(id, job.attempt).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(chunk) = reader.next().await.unwrap() {
        match chunk.stream {
            Stream::Stdout => stdout.extend(chunk.bytes),
            Stream::Stderr => stderr.extend(chunk.bytes),
        }
    }
    assert_eq!((stdout.len() + stderr.len()) as u64, *log, "the length of the log of {id}");
    let is_same =
        stdout == script.output(Stream::Stdout) && stderr == script.output(Stream::Stderr);
    assert!(is_same, "the log of {id}, attempt {}", job.attempt);
}
