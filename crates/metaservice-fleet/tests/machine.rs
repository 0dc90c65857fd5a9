//! Workers with real machines, on a real `nats-server`.
#![allow(clippy::unwrap_used)]

mod servers;

use std::path::Path;
use std::time::Duration;

use metaservice_fleet::log::Stream;
use metaservice_fleet::queue::{Queue, Submitted};
use metaservice_fleet::state::Phase;
use metaservice_fleet::step::{Artifact, ExceptionCause, Outcome};
use metaservice_fleet::store::Store;
use metaservice_fleet::worker::{self, Event, Options, Summary, Warm, WorkerError};
use metaservice_sandbox::spec::ArtifactSpec;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use servers::{One, id, shell};

struct Worker {
    task: JoinHandle<Result<Summary, WorkerError>>,
    drain: CancellationToken,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Worker {
    fn start(queue: &Queue, name: &str, directory: &Path) -> Self {
        Self::with(queue, name, directory, |_| {})
    }

    fn with(
        queue: &Queue,
        name: &str,
        directory: &Path,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = Options::new(name.parse().unwrap(), directory.join(name));
        (options.slots, options.memory) = (2, 4 << 30);
        options.drain_timeout = Duration::from_secs(60);
        change(&mut options);
        let (sender, mut real) = mpsc::unbounded_channel();
        let (copy, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(e) = real.recv().await {
                eprintln!("{e:?}");
                let _ = copy.send(e);
            }
        });
        let drain = CancellationToken::new();
        let task = tokio::spawn(worker::run(queue.clone(), options, drain.clone(), sender));
        Self { task, drain, events }
    }

    async fn drained(self) -> Summary {
        self.drain.cancel();
        self.task.await.unwrap().unwrap()
    }

    async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.events.recv().await.expect("the worker works");
            if wanted(&event) {
                return event;
            }
        }
    }
}

async fn outcome(queue: &Queue, name: &str) -> Outcome {
    let mut follow = queue.follow(&id(name)).await.unwrap();
    loop {
        if let Some(outcome) = follow.next().await.unwrap().outcome() {
            return outcome.clone();
        }
    }
}

async fn log(queue: &Queue, name: &str, attempt: u32) -> (String, String) {
    let mut reader = queue.log(&id(name), attempt).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = reader.next().await.unwrap() {
        match chunk.stream {
            Stream::Stdout => out.extend(chunk.bytes),
            Stream::Stderr => err.extend(chunk.bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_its_log_its_status_and_its_artifacts() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let mut request =
        shell("echo out; echo err >&2; mkdir /d; echo 1 > /d/one; echo x > /f; exit 3");
    for path in ["/f", "/d", "/missing"] {
        let artifact: ArtifactSpec =
            serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        request.spec.artifacts.push(artifact);
    }
    queue.submit(&id("a"), &request).await.unwrap();
    let worker = Worker::start(&queue, "w", directory.path());
    let Outcome::Finished { status, log: length, artifacts, .. } = outcome(&queue, "a").await
    else {
        panic!("it has no result");
    };
    assert_eq!((status, length), (3, 8));
    assert_eq!(log(&queue, "a", 1).await, ("out\n".to_owned(), "err\n".to_owned()));
    let store = Store::of_queue(queue.clone());
    let mut file = Vec::new();
    store.get(artifacts[0].object.as_ref().unwrap(), &mut file).await.unwrap();
    assert_eq!((file.as_slice(), artifacts[0].is_directory), (&b"x\n"[..], false));
    assert!(artifacts[1].is_directory);
    let mut archive = Vec::new();
    store.get(artifacts[1].object.as_ref().unwrap(), &mut archive).await.unwrap();
    assert!(archive.windows(5).any(|part| part == b"d/one"));
    assert_eq!(artifacts[2].object, None);
    assert_eq!(worker.drained().await, Summary { claimed: 1, ended: 1 });
    removes_all(&server, &queue, &artifacts).await;
    let left = std::fs::read_dir(directory.path().join("w/attempts")).unwrap().count();
    assert_eq!(left, 0, "the outputs of the attempt are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_the_artifacts_and_the_whole_log() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let address = format!("file://{}", directory.path().join("store").display());
    let store = Store::open(&address).unwrap();
    let mut request = shell("echo out; seq 100000; echo x > /f");
    let artifact = serde_json::from_value(serde_json::json!({ "path": "/f" })).unwrap();
    request.spec.artifacts.push(artifact);
    queue.submit(&id("a"), &request).await.unwrap();
    let kept = store.clone();
    let worker = Worker::with(&queue, "w", directory.path(), |o| o.store = Some(kept));
    let Outcome::Finished { log: length, log_object, artifacts, .. } = outcome(&queue, "a").await
    else {
        panic!("it has no result");
    };
    let (mut whole, mut file) = (Vec::new(), Vec::new());
    store.get(&log_object.unwrap(), &mut whole).await.unwrap();
    let (streamed, _) = log(&queue, "a", 1).await;
    assert!(whole.len() as u64 == length && whole == streamed.as_bytes());
    store.get(artifacts[0].object.as_ref().unwrap(), &mut file).await.unwrap();
    assert_eq!(file, b"x\n");
    worker.drained().await;
}

/// Removes the job "a", and finds nothing of it.
async fn removes_all(server: &One, queue: &Queue, artifacts: &[Artifact]) {
    assert_eq!(queue.prune(|_| false).await.unwrap(), []);
    assert_eq!(queue.prune(|_| true).await.unwrap(), [id("a")]);
    assert!(queue.job(&id("a")).await.unwrap().is_none());
    let store = Store::of_queue(queue.clone());
    assert!(store.get(artifacts[0].object.as_ref().unwrap(), &mut Vec::new()).await.is_err());
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for stream in ["KV_ms_jobs", "ms_logs", "OBJ_ms_files"] {
        let mut stream = context.get_stream(stream).await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 0);
    }
    // The id is free again.
    let submitted = queue.submit(&id("a"), &shell("true")).await.unwrap();
    assert_eq!(submitted, Submitted::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_longer_than_the_worker_allows_ends_the_job() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    queue.submit(&id("a"), &shell("yes; sleep 1000")).await.unwrap();
    let worker = Worker::with(&queue, "w", directory.path(), |o| o.max_log = 1 << 20);
    let Outcome::Finished { status, log: length, .. } = outcome(&queue, "a").await else {
        panic!("it has no result");
    };
    assert_eq!((status, length), (125, 1 << 20));
    worker.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_that_are_larger_than_the_worker_allows_leave_no_result_and_no_file() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let script = "mkdir /d; head -c 700000 /dev/zero | tee /a /b > /d/c";
    for (name, paths) in
        [("fits", &["/a"][..]), ("one", &["/d", "/a", "/b"]), ("two", &["/d", "/a"])]
    {
        let mut request = shell(script);
        let artifacts = paths.iter().map(|path| serde_json::json!({ "path": path }));
        let artifacts = artifacts.map(|path| serde_json::from_value(path).unwrap());
        request.spec.artifacts = artifacts.collect();
        queue.submit(&id(name), &request).await.unwrap();
    }
    let worker = Worker::with(&queue, "w", directory.path(), |o| o.max_artifacts = 1 << 20);
    let fits = outcome(&queue, "fits").await;
    assert!(matches!(fits, Outcome::Finished { status: 0, .. }), "{fits:?}");
    for name in ["one", "two"] {
        let Outcome::Exception { cause, message } = outcome(&queue, name).await else {
            panic!("{name} has a result");
        };
        assert_eq!((cause, message.as_str()), (ExceptionCause::Artifacts, TOO_LARGE), "{name}");
        assert_eq!(queue.job(&id(name)).await.unwrap().unwrap().attempt, 1, "it is not repeated");
    }
    worker.drained().await;
    let left = std::fs::read_dir(directory.path().join("w/attempts"));
    assert_eq!(left.map_or(0, Iterator::count), 0, "nothing is left");
}

const TOO_LARGE: &str = "the artifacts are larger than 1048576 bytes";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_killed_when_it_is_cancelled() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    queue.submit(&id("a"), &shell("echo begun; sleep 1000")).await.unwrap();
    let worker = Worker::start(&queue, "w", directory.path());
    let mut reader = queue.log(&id("a"), 1).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().bytes, "begun\n");
    queue.cancel(&id("a")).await.unwrap();
    assert_eq!(outcome(&queue, "a").await, Outcome::Cancelled);
    assert_eq!(reader.next().await.unwrap(), None, "the log has an end");
    worker.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_worker_that_is_gone_runs_elsewhere() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    queue.submit(&id("a"), &shell("echo begun; sleep 3; echo ended")).await.unwrap();
    let mut first = Worker::start(&queue, "first", directory.path());
    first.event(|event| matches!(event, Event::Claimed { .. })).await;
    // As if it was killed: it renews nothing, and writes nothing.
    first.task.abort();
    let second = Worker::start(&queue, "second", directory.path());
    let Outcome::Finished { status: 0, .. } = outcome(&queue, "a").await else {
        panic!("it has no result");
    };
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert_eq!(job.attempt, 2);
    let Phase::Ended { worker: Some(name), .. } = job.phase else { panic!("no worker") };
    assert_eq!(name.as_str(), "second");
    assert_eq!(log(&queue, "a", 2).await.0, "begun\nended\n");
    second.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_gives_back_what_takes_too_long() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let mut request = shell("sleep 1000");
    request.attempts = 1;
    queue.submit(&id("a"), &request).await.unwrap();
    let mut worker = Worker::with(&queue, "w", directory.path(), |options| {
        options.drain_timeout = Duration::from_millis(300);
    });
    worker.event(|event| matches!(event, Event::Claimed { .. })).await;
    queue.drain(&"w".parse().unwrap()).await.unwrap();
    assert_eq!(worker.task.await.unwrap().unwrap(), Summary { claimed: 1, ended: 0 });
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert!(matches!(job.phase, Phase::Waiting { .. }), "the attempt does not count");
    assert_eq!(queue.workers().await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_no_server_confirms_ends_its_machines_before_its_lease() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    queue.submit(&id("a"), &shell("sleep 1000")).await.unwrap();
    let mut worker = Worker::start(&queue, "w", directory.path());
    worker.event(|event| matches!(event, Event::Claimed { .. })).await;
    // Its host answers, and it does not: another worker may reach it.
    server.pause();
    worker.event(|event| matches!(event, Event::Dropped { .. })).await;
    server.resume();
    worker.event(|event| matches!(event, Event::Back)).await;
    // The job that was dropped runs again, and not for the old claim.
    worker.event(|event| matches!(event, Event::Claimed { attempt: 2, .. })).await;
    queue.cancel(&id("a")).await.unwrap();
    assert_eq!(outcome(&queue, "a").await, Outcome::Cancelled);
    worker.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_down_longer_than_a_lease_gets_the_log_and_the_result_later() {
    let mut server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    // More than the outputs and the pipes hold in memory: what waits is on disk.
    let script = "echo begun; sleep 12; head -c 3000000 /dev/zero | tr '\\0' x; sleep 12; echo end";
    queue.submit(&id("a"), &shell(script)).await.unwrap();
    let mut worker = Worker::start(&queue, "w", directory.path());
    let mut reader = queue.log(&id("a"), 1).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().bytes, "begun\n");
    server.kill();
    worker.event(|event| matches!(event, Event::Down)).await;
    // Longer than a lease after the last renewal, and until the command has ended.
    tokio::time::sleep(Duration::from_secs(26)).await;
    server.revive();
    let Outcome::Finished { status: 0, log: length, .. } = outcome(&queue, "a").await else {
        panic!("it has no result");
    };
    assert_eq!(length, 6 + 3_000_000 + 4);
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert_eq!(job.attempt, 1, "no other attempt was needed");
    let (out, _) = log(&queue, "a", 1).await;
    assert!(out.starts_with("begun\nxxx") && out.ends_with("xend\n") && out.len() == 3_000_010);
    worker.event(|event| matches!(event, Event::Back)).await;
    worker.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_takes_over_a_machine_that_waits_and_another_is_started() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let warm = |count| Warm { image: None, memory: Some(256 << 20), cpus: None, count };
    let mut worker = Worker::with(&queue, "w", directory.path(), |options| {
        options.warm = vec![
            warm(1),
            Warm { image: Some("no-such-image".to_owned()), memory: None, cpus: None, count: 1 },
        ];
    });
    worker.event(|event| matches!(event, Event::NotWarm { image: Some(_), .. })).await;
    let mut leases = queue.leases().await.unwrap();
    let mut waits_for = async |count| {
        while leases.next().await.unwrap().1.warm != count {}
    };
    waits_for(1).await;
    let long = shell("cat /proc/uptime; echo begun; sleep 1000");
    queue.submit(&id("a"), &long).await.unwrap();
    let claim = worker.event(|event| matches!(event, Event::Started { .. })).await;
    let Event::Started { warm: true, .. } = claim else { panic!("it got a machine of its own") };
    waits_for(1).await;
    queue.cancel(&id("a")).await.unwrap();
    assert_eq!(outcome(&queue, "a").await, Outcome::Cancelled);
    // Another size: a machine of its own.
    let mut other = shell("true");
    other.spec.machine.memory.0 = 300 << 20;
    queue.submit(&id("b"), &other).await.unwrap();
    let claim = worker.event(|event| matches!(event, Event::Started { .. })).await;
    assert!(matches!(claim, Event::Started { warm: false, .. }));
    assert!(matches!(outcome(&queue, "b").await, Outcome::Finished { status: 0, .. }));
    worker.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_works_once_ends_with_the_last_job() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    for number in 0..5 {
        queue.submit(&id(&format!("j{number}")), &shell("true")).await.unwrap();
    }
    let mut missing = shell("true");
    missing.attempts = 1;
    missing.spec.machine.image = Some("no-such-image".into());
    queue.submit(&id("missing"), &missing).await.unwrap();
    let worker = Worker::with(&queue, "w", directory.path(), |options| options.once = true);
    assert_eq!(worker.task.await.unwrap().unwrap(), Summary { claimed: 6, ended: 5 });
    assert!(matches!(outcome(&queue, "missing").await, Outcome::Exception { .. }));
}
