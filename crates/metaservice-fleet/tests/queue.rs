//! The queue on a real `nats-server`: steps, logs, and artifacts, without machines.
#![allow(clippy::unwrap_used)]

mod servers;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use metaservice_fleet::name::{JobId, RunId};
use metaservice_fleet::queue::{
    Cancelled, LEFT_AFTER, Queue, ReadError, SubmitError, Submitted, Written,
};
use metaservice_fleet::request::Request;
use metaservice_fleet::state::Phase;
use metaservice_fleet::step::{Artifact, Change, Outcome};
use metaservice_fleet::store::Store;
use metaservice_fleet::worker::{self, Event, Options, Run, Runner, Running, WorkerError};
use metaservice_sandbox::spec::JobSpec;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use servers::{Cluster, One, id};

fn request(word: &str) -> Request {
    Request::new(JobSpec::new([word]))
}

fn claim(worker: &str) -> Change {
    Change::Claimed { worker: worker.parse().unwrap(), run: RunId::random() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_submission_is_the_same_job_and_another_is_refused() {
    let server = One::start().await;
    let queue = server.queue().await;
    let first = queue.submit(&id("a"), &request("true")).await.unwrap();
    assert_eq!(first, Submitted::New);
    let again = queue.submit(&id("a"), &request("true")).await.unwrap();
    assert_eq!(again, Submitted::Known);
    let other = queue.submit(&id("a"), &request("false")).await;
    assert!(matches!(other, Err(SubmitError::Other(_))), "{other:?}");
    let mut wrong = request("true");
    wrong.spec.log = Some("/etc/passwd".into());
    assert!(matches!(queue.submit(&id("b"), &wrong).await, Err(SubmitError::Invalid(_))));
    assert_eq!(queue.view().await.unwrap().jobs().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_is_freed_by_the_removal_of_old_jobs() {
    let mut server = One::of_size(20 << 20);
    let queue = server.queue().await;
    let mut left = request("true");
    let artifact = serde_json::from_value(serde_json::json!({ "path": "/f" })).unwrap();
    left.spec.artifacts.push(artifact);
    queue.submit(&id("a"), &left).await.unwrap();
    queue.write(&id("a"), 1, claim("w")).await.unwrap();
    let store = Store::of_queue(queue.clone());
    let file = || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 8 << 20]).unwrap();
        file
    };
    let object = store.put("a.1.0", file()).await.unwrap();
    let (path, error) = ("/f".to_owned(), None);
    let artifacts = vec![Artifact { path, object: Some(object), is_directory: false, error }];
    let outcome = Outcome::Finished { status: 0, log: 0, log_object: None, artifacts };
    queue.write(&id("a"), 2, Change::Ended(outcome)).await.unwrap();
    server.fill().await;
    let refused = queue.submit(&id("b"), &request(&"x".repeat(100_000))).await;
    assert!(refused.is_err(), "the server is not full");
    assert_eq!(queue.prune(|_| true).await.unwrap(), [id("a")]);
    // A server that was full counts anew when it starts.
    server.restart().await;
    let queue = server.queue().await;
    queue.submit(&id("b"), &request(&"x".repeat(100_000))).await.unwrap();
}

/// Runs each job until a signal.
#[derive(Debug)]
struct UntilTold(Arc<Notify>);

impl Runner for UntilTold {
    fn run(&self, mut run: Run) -> Running {
        let told = self.0.clone();
        Box::pin(async move {
            run.stdout.write_all(b"begin\n").await.unwrap();
            told.notified().await;
            run.stdout.write_all(b"end\n").await.unwrap();
            Ok(3)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_continue_while_the_server_is_full_and_finish_once_it_is_not() {
    let mut server = One::of_size(8 << 20);
    let queue = server.queue().await;
    let (told, drain) = (Arc::new(Notify::new()), CancellationToken::new());
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new("w".parse().unwrap(), directory.path().join("w"));
    let (sender, mut events) = mpsc::unbounded_channel::<Event>();
    let runner = UntilTold(told.clone());
    let work = tokio::spawn(worker::run_in(queue.clone(), options, runner, drain.clone(), sender));
    queue.submit(&id("a"), &request("true")).await.unwrap();
    while !matches!(events.recv().await.unwrap(), Event::Output { .. }) {}
    let mut leases = queue.leases().await.unwrap();
    server.fill().await;
    assert!(queue.submit(&id("b"), &request("true")).await.is_err(), "the server is not full");
    told.notify_one();
    // A lease that is not renewed would be over.
    let (first, _) = leases.next().await.unwrap();
    let mut last = first;
    let renewing = async {
        while last - first < 20_000 {
            last = leases.next().await.unwrap().0;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewing).await.expect("the lease is renewed");
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert!(matches!(job.phase, Phase::Running { .. }), "{:?}", job.phase);
    let mut told_full = false;
    while let Ok(event) = events.try_recv() {
        told_full |= matches!(event, Event::Full { .. });
        assert!(!matches!(event, Event::Cut | Event::Lost { .. } | Event::Dropped { .. }));
    }
    assert!(told_full);
    assert_eq!(queue.remove_left_parts(Duration::ZERO).await.unwrap(), 1);
    // A server that was full counts anew when it starts. It has forgotten the leases then.
    server.restart().await;
    while !matches!(events.recv().await.unwrap(), Event::Ended { .. }) {}
    // Its bucket of leases begins anew, and so does the reader, which may miss the server at first.
    let renewed = async { while leases.next().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.unwrap();
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert!(matches!(job.outcome(), Some(Outcome::Finished { status: 3, log: 10, .. })), "{job:?}");
    assert_eq!(job.attempt, 1);
    drain.cancel();
    work.await.unwrap().unwrap();
}

/// The parts of files in the object store.
async fn parts(server: &One) -> usize {
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream("OBJ_ms_files").await.unwrap();
    let subjects = stream.info_with_subjects("$O.ms_files.C.*").await.unwrap();
    subjects.try_fold(0, |count, (_, parts)| async move { Ok(count + parts) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_leaves_no_parts() {
    let server = One::of_size(4 << 20);
    let queue = server.queue().await;
    let store = Store::of_queue(queue);
    let file = |length: usize| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; length]).unwrap();
        file
    };
    store.put("a.1.0", file(300_000)).await.unwrap();
    let before = parts(&server).await;
    assert!(before >= 3, "{before}");
    store.put("b.1.0", file(8 << 20)).await.unwrap_err();
    assert_eq!(parts(&server).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_belong_to_no_object_are_removed_once_they_are_old() {
    let server = One::start().await;
    let queue = server.queue().await;
    let store = Store::of_queue(queue.clone());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 300_000]).unwrap();
    let object = store.put("a.1.0", file).await.unwrap();
    let whole = parts(&server).await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    for number in 0..3 {
        let subject = format!("$O.ms_files.C.left{}", number / 2);
        context.publish(subject, "part".into()).await.unwrap().await.unwrap();
    }
    assert_eq!(queue.remove_left_parts(LEFT_AFTER).await.unwrap(), 0);
    assert_eq!(parts(&server).await, whole + 3);
    assert_eq!(queue.remove_left_parts(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(parts(&server).await, whole);
    let mut read = Vec::new();
    store.get(&object, &mut read).await.unwrap();
    assert_eq!(read.len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_gets_a_step() {
    let server = One::start().await;
    one_writer_wins(&server.queue().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_gets_a_step_in_a_cluster() {
    let cluster = Cluster::start().await;
    one_writer_wins(&cluster.queue().await).await;
}

/// Twenty writers for each step of a job: one writes it, and all others learn whose it is.
async fn one_writer_wins(queue: &Queue) {
    queue.submit(&id("a"), &request("true")).await.unwrap();
    for number in 1..30 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..20 {
            let queue = queue.clone();
            let change = claim(&format!("w{writer}"));
            writers.spawn(async move {
                let written = queue.write(&id("a"), number, change.clone()).await.unwrap();
                (change, written)
            });
        }
        let written = writers.join_all().await;
        let (own, others): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|(_, written)| *written == Written::Own);
        let [(winner, _)] = &own[..] else { panic!("{} writers won step {number}", own.len()) };
        for (_, other) in others {
            assert_eq!(other, Written::Other(Some(Box::new(winner.clone()))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_follows_a_job_to_its_end() {
    let server = One::start().await;
    let queue = server.queue().await;
    assert!(matches!(queue.follow(&id("a")).await.unwrap().next().await, Err(ReadError::NoJob(_))));
    queue.submit(&id("a"), &request("true")).await.unwrap();
    let mut follow = queue.follow(&id("a")).await.unwrap();
    assert!(matches!(follow.next().await.unwrap().phase, Phase::Waiting { .. }));
    queue.write(&id("a"), 1, claim("w")).await.unwrap();
    assert!(matches!(follow.next().await.unwrap().phase, Phase::Running { .. }));
    assert_eq!(queue.cancel(&id("a")).await.unwrap(), Cancelled::Running);
    assert!(follow.next().await.unwrap().is_cancelled);
    assert_eq!(queue.cancel(&id("a")).await.unwrap(), Cancelled::Ended);
    queue.write(&id("a"), 2, Change::Ended(Outcome::Cancelled)).await.unwrap();
    assert_eq!(follow.next().await.unwrap().outcome(), Some(&Outcome::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_that_is_cancelled_has_ended() {
    let server = One::start().await;
    let queue = server.queue().await;
    queue.submit(&id("a"), &request("true")).await.unwrap();
    assert_eq!(queue.cancel(&id("a")).await.unwrap(), Cancelled::Waiting);
    assert_eq!(queue.write(&id("a"), 1, claim("w")).await.unwrap(), Written::Own);
    let job = queue.job(&id("a")).await.unwrap().unwrap();
    assert_eq!(job.outcome(), Some(&Outcome::Cancelled), "a late claim changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_queue_come_after_a_restart_of_its_server() {
    let mut server = One::start().await;
    let queue = server.queue().await;
    queue.submit(&id("a"), &request("true")).await.unwrap();
    let mut steps = queue.steps().await.unwrap();
    assert_eq!(steps.next().await.unwrap().id, id("a"));
    server.restart().await;
    let mut submitted = Err(());
    while submitted.is_err() {
        submitted = queue.submit(&id("b"), &request("true")).await.map_err(drop);
    }
    let step = loop {
        if let Ok(step) = steps.next().await {
            break step;
        }
    };
    assert_eq!(step.id, id("b"), "no step is lost or repeated");
    let names: BTreeSet<_> = queue.view().await.unwrap().jobs().map(|(id, _)| id.clone()).collect();
    assert_eq!(names, BTreeSet::from([id("a"), id("b")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_anew_though_its_calls_are_cancelled() {
    let mut server = One::start().await;
    let queue = server.queue().await;
    let mut steps = queue.steps().await.unwrap();
    server.kill();
    let begun = std::time::Instant::now();
    // A worker with other events cancels its calls as often.
    let mut read = async || tokio::time::timeout(Duration::from_millis(100), steps.next()).await;
    // The reader must fail once before the server is there again.
    while !matches!(read().await, Ok(Err(_))) {
        assert!(begun.elapsed() < Duration::from_secs(30), "a server that is down is an error");
    }
    server.revive();
    let id: JobId = "late".parse().unwrap();
    while queue.submit(&id, &request("true")).await.is_err() {}
    let begun = std::time::Instant::now();
    while !matches!(read().await, Ok(Ok(_))) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the reader begins anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_name_is_taken_ends() {
    let server = One::start().await;
    let queue = server.queue().await;
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let renew = async |run: &str, state: &str| {
        let renewal = serde_json::json!({
            "worker": "w", "run": run, "slots": 1, "running": 0, "state": state, "version": "1",
        });
        let sent = context.publish("$KV.ms_leases.lease.w", renewal.to_string().into()).await;
        sent.unwrap().await.unwrap();
    };
    renew("before", "gone").await;
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new("w".parse().unwrap(), directory.path().join("w"));
    let (sender, mut events) = mpsc::unbounded_channel::<Event>();
    let told = Arc::new(Notify::new());
    let (runner, drain) = (UntilTold(told.clone()), CancellationToken::new());
    let work = tokio::spawn(worker::run_in(queue.clone(), options, runner, drain, sender));
    while !matches!(events.recv().await.unwrap(), Event::Ready) {}
    // A renewal of an earlier life that comes late.
    renew("before", "ready").await;
    queue.submit(&id("a"), &request("true")).await.unwrap();
    told.notify_one();
    while !matches!(events.recv().await.unwrap(), Event::Ended { .. }) {}
    renew("after", "ready").await;
    let ended = work.await.unwrap();
    assert!(matches!(ended, Err(WorkerError::Name { .. })), "{ended:?}");
    let (_, last) = queue.leases().await.unwrap().next().await.unwrap();
    assert_eq!(last.run.to_string(), "after", "it has not written more");
}
