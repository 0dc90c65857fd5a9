//! A worker whose jobs have faults, on a real `nats-server`.

use std::time::Duration;

use metaservice_fleet::request::Request;
use metaservice_fleet::step::{ExceptionCause, LostCause, Outcome};
use metaservice_fleet::worker::{self, Event, Options, Run, Runner, Running};
use metaservice_sandbox::spec::JobSpec;
use tokio_util::sync::CancellationToken;

use super::servers::{One, id};

/// Panics in the first attempt of the job `once`, and in each of the job `always`.
#[derive(Debug)]
struct Faulty;

impl Runner for Faulty {
    fn run(&self, run: Run) -> Running {
        Box::pin(async move {
            match (run.id.as_str(), run.attempt) {
                ("always", _) | ("once", 1) => panic!("a fault of {}", run.id),
                _ => Ok(0),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_attempt_costs_the_worker_no_other_job() {
    let server = One::start().await;
    let queue = server.queue().await;
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new("w".parse().unwrap(), directory.path().join("w"));
    let drain = CancellationToken::new();
    let (events, _reports) = tokio::sync::mpsc::unbounded_channel::<Event>();
    let work = worker::run_in(queue.clone(), options, Faulty, drain.clone(), events);
    let work = tokio::spawn(work);

    let mut outcomes = Vec::new();
    for name in ["always", "once", "plain"] {
        let mut request = Request::new(JobSpec::new(["true"]));
        request.spec.machine.memory.0 = 64 << 20;
        queue.submit(&id(name), &request).await.unwrap();
        let mut follow = queue.follow(&id(name)).await.unwrap();
        let reading = async {
            loop {
                if let Some(outcome) = follow.next().await.unwrap().outcome() {
                    return outcome.clone();
                }
            }
        };
        outcomes.push(tokio::time::timeout(Duration::from_secs(60), reading).await.expect(name));
    }
    let cause = ExceptionCause::Lost(LostCause::Machine);
    let message = "a fault of the worker: a fault of always".to_owned();
    assert_eq!(outcomes[0], Outcome::Exception { cause, message });
    for outcome in &outcomes[1..] {
        assert!(matches!(outcome, Outcome::Finished { status: 0, .. }), "{outcome:?}");
    }
    drain.cancel();
    let summary = work.await.unwrap().unwrap();
    assert_eq!((summary.claimed, summary.ended), (5, 2));
}
