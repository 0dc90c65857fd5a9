//! The queue under faults: real `nats-server`s, workers as processes that are killed and stopped,
//! and simulated machines. The servers of a cluster of release 2.9 end in order. The seed of the
//! faults is printed; `METASERVICE_CHAOS_SEED` sets it, and `METASERVICE_CHAOS_JOBS` the number of
//! jobs.
#![allow(clippy::unwrap_used)]

mod checks;
mod disk;
mod fake;
mod faults;
mod network;
mod process;
#[path = "../servers/mod.rs"]
mod servers;

use std::time::Duration;

use futures_util::StreamExt;
use metaservice_fleet::log::Stream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, Submitted};
use metaservice_fleet::request::Request;
use metaservice_sandbox::spec::JobSpec;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use checks::{Course, Ran, is_over};
use fake::Script;
use faults::{Fault, Record, Servers, Target};
use process::Part;
use servers::{Cluster, One};

const WORKERS: usize = 5;

/// Between two submissions.
const PACE: Duration = Duration::from_millis(150);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

pub(crate) fn request() -> Request {
    let mut request = Request::new(JobSpec::new(["script"]));
    request.spec.machine.memory.0 = 64 << 20;
    // The faults use up attempts.
    request.attempts = 100;
    request
}

/// It is also the main function of a worker process.
#[tokio::test]
async fn a_script_follows_from_its_job_and_attempt() {
    if let Some(part) = Part::of_process() {
        return part.play().await;
    }
    let outputs = |attempt| {
        let script = Script::of("a", attempt);
        [Stream::Stdout, Stream::Stderr].map(|stream| script.output(stream))
    };
    assert!(outputs(1) == outputs(1) && outputs(1) != outputs(2));
}

#[test]
fn each_fault_has_its_end_and_one_server_at_a_time_has_one() {
    let plan = faults::plan(7, 60_000, 3, 3);
    let mut broken = Vec::new();
    for (_, target, fault) in plan {
        match fault {
            Fault::Kill | Fault::Stop => broken.push(target),
            Fault::Start | Fault::Continue => {
                let place = broken.iter().position(|one| *one == target).expect("it began");
                broken.remove(place);
            }
        }
        let servers = broken.iter().filter(|target| matches!(target, Target::Server(_)));
        assert!(servers.count() <= 1);
    }
    assert_eq!(broken, []);
}

#[test]
fn only_a_stopped_run_may_be_late() {
    let ran = |end| Ran { worker: "w".to_owned(), begin: 10, end };
    let mut record = Record::default();
    assert!(is_over(&ran(Some(20)), &record, 20) && !is_over(&ran(Some(21)), &record, 20));
    assert!(!is_over(&ran(None), &record, 1_000_000));
    record.kills.insert("w".to_owned(), vec![5, 30]);
    assert!(is_over(&ran(None), &record, 30) && !is_over(&ran(None), &record, 29));
    record.stops.insert("w".to_owned(), vec![(15, 40_000)]);
    assert!(is_over(&ran(Some(41_000)), &record, 20_000));
    assert!(!is_over(&ran(Some(43_000)), &record, 20_000));
    assert!(!is_over(&ran(Some(41_000)), &record, 14));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_has_one_result_whatever_happens_to_a_cluster() {
    let cluster = Cluster::start().await;
    let (queue, url) = (cluster.queue().await, cluster.url());
    chaos(Servers::Cluster(cluster), &queue, &url, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_has_one_result_whatever_happens_to_one_server() {
    let one = One::start().await;
    let (queue, url) = (one.queue().await, one.url());
    chaos(Servers::One(one), &queue, &url, 1).await;
}

async fn chaos(mut servers: Servers, queue: &Queue, url: &str, replicas: usize) {
    let seed = number("METASERVICE_CHAOS_SEED").unwrap_or_else(fake::now);
    let jobs = number("METASERVICE_CHAOS_JOBS").unwrap_or(100);
    eprintln!("METASERVICE_CHAOS_SEED={seed} METASERVICE_CHAOS_JOBS={jobs}");
    let began = Instant::now();
    let root = tempfile::tempdir().unwrap();
    let parts: Vec<Part> = (0..WORKERS)
        .map(|number| Part {
            url: url.to_owned(),
            replicas,
            name: format!("w{number}"),
            root: root.path().to_owned(),
        })
        .collect();
    let mut workers: Vec<_> = parts.iter().map(Part::start).collect();
    let horizon = u64::try_from(PACE.as_millis()).unwrap() * jobs;
    let plan = faults::plan(seed, horizon, WORKERS, replicas);
    let count = plan.len() / 2;
    let ids = ids(jobs);
    let (record, ()) = tokio::join!(
        faults::suffer(plan, &mut servers, &parts, &mut workers),
        clients(queue, seed, &ids)
    );
    let mut course = Course::default();
    let ending = tokio::time::timeout(Duration::from_secs(120), course.read(queue, ids.len()));
    if ending.await.is_err() {
        panic!("{}", unfinished(&course, &parts));
    }
    for worker in workers {
        worker.drained().await;
    }
    let runs = checks::runs(root.path());
    checks::no_two_at_once(&runs, &course, &record);
    let ended = course.jobs;
    futures_util::stream::iter(&ended)
        .for_each_concurrent(8, |(id, job)| checks::has_its_log(queue, id, job))
        .await;
    for part in &parts {
        let left = std::fs::read_dir(root.path().join(&part.name).join("attempts"));
        assert_eq!(left.map_or(0, Iterator::count), 0, "{} left something", part.name);
    }
    let cancelled = ended.values().filter(|job| job.is_cancelled).count();
    let again = ended.values().filter(|job| job.attempt > 1).count();
    assert!(again > 0, "no fault met a job");
    eprintln!(
        "{jobs} jobs, {} runs, {again} jobs ran again, {cancelled} cancelled, {count} faults, {:?}",
        runs.len(),
        began.elapsed()
    );
}

/// The jobs that have no result, and what the workers said last.
fn unfinished(course: &Course, parts: &[Part]) -> String {
    let left = course.jobs.iter().filter(|(_, job)| job.outcome().is_none());
    let mut text = String::from("some jobs have no result\n");
    for (id, job) in left {
        text.push_str(&format!(
            "{id} step {} attempt {}: {:?}\n",
            job.next, job.attempt, job.phase
        ));
    }
    for part in parts {
        let said = std::fs::read_to_string(part.root.join(format!("{}.txt", part.name)));
        let said = said.unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(12).collect();
        text.push_str(&format!("{}:\n", part.name));
        lines.iter().rev().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

fn ids(count: u64) -> Vec<JobId> {
    (0..count).map(|number| format!("job-{number}").parse().unwrap()).collect()
}

/// Submits the jobs, some of them twice, and cancels some.
async fn clients(queue: &Queue, seed: u64, ids: &[JobId]) {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut pace = tokio::time::interval(PACE);
    let mut tasks = JoinSet::new();
    for id in ids {
        pace.tick().await;
        let (queue, id) = (queue.clone(), id.clone());
        let (twice, cancels) = (random.random_ratio(1, 10), random.random_ratio(1, 8));
        let after = Duration::from_millis(random.random_range(0..3_000));
        tasks.spawn(async move {
            submit(&queue, &id).await;
            if twice {
                assert_eq!(submit(&queue, &id).await, Submitted::Known);
            }
            if cancels {
                tokio::time::sleep(after).await;
                // The servers may be down.
                while queue.cancel(&id).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

async fn submit(queue: &Queue, id: &JobId) -> Submitted {
    loop {
        match queue.submit(id, &request()).await {
            Ok(submitted) => return submitted,
            // The servers may be down.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
