//! A worker of this version next to writers of a later one, on a real `nats-server`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Cancelled, Queue, ReadError};
use metaservice_fleet::state::JobState;
use metaservice_fleet::step::{Outcome, WorkerState};
use metaservice_fleet::worker::{self, Event, Options, Run, Runner, Running};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::servers::{One, id};

/// The runs of each job.
#[derive(Debug, Clone, Default)]
struct Counted(Arc<Mutex<BTreeMap<JobId, u32>>>);

impl Runner for Counted {
    fn run(&self, run: Run) -> Running {
        *self.0.lock().unwrap().entry(run.id).or_default() += 1;
        Box::pin(std::future::ready(Ok(0)))
    }
}

/// A writer of a later version.
#[derive(Clone)]
struct Later(jetstream::Context);

impl Later {
    async fn connect(server: &One) -> Self {
        Self(jetstream::new(async_nats::connect(server.url()).await.unwrap()))
    }

    async fn write(&self, subject: String, value: Value) {
        self.0.publish(subject, value.to_string().into()).await.unwrap().await.unwrap();
    }

    async fn step(&self, job: &str, number: u32, change: Value) {
        let nonce = format!("later-{number}");
        let step = json!({ "version": 1, "nonce": nonce, "change": change, "later": [{}] });
        self.write(format!("$KV.ms_jobs.job.{job}.{number}"), step).await;
    }

    async fn submit(&self, job: &str) {
        self.step(job, 0, json!({ "submitted": request() })).await;
    }

    /// The claim of a worker of a later version.
    async fn claim(&self, job: &str, number: u32, worker: &str) {
        let claimed = json!({ "worker": worker, "run": format!("run-{worker}"), "later": 1 });
        self.step(job, number, json!({ "claimed": claimed })).await;
    }

    /// The lease of such a worker, in a state that this version does not know.
    async fn renew(&self, worker: &str) {
        let renewal = json!({
            "worker": worker, "run": format!("run-{worker}"), "slots": 1, "running": 1,
            "state": "paused", "version": "99.0.0", "later": { "more": 1 },
        });
        self.write(format!("$KV.ms_leases.lease.{worker}"), renewal).await;
    }

    /// The steps of a job, each as JSON.
    async fn steps(&self, job: &str) -> Vec<Value> {
        let stream = self.0.get_stream("KV_ms_jobs").await.unwrap();
        let mut steps = Vec::new();
        for number in 0..10 {
            let subject = format!("$KV.ms_jobs.job.{job}.{number}");
            let Ok(step) = stream.get_last_raw_message_by_subject(&subject).await else { break };
            steps.push(serde_json::from_slice(&step.payload).unwrap());
        }
        steps
    }
}

fn request() -> Value {
    json!({ "spec": { "version": 1, "command": ["true"], "machine": { "memory": "64M" } } })
}

/// All jobs, before a worker of this version starts.
async fn submit_all(later: &Later) {
    for job in ["plain", "reserved", "outcome", "version", "gone", "held"] {
        later.submit(job).await;
    }
    let mut request = request();
    request["gpus"] = json!(2);
    later.step("request", 0, json!({ "submitted": request })).await;
    later.step("reserved", 1, json!({ "reserved": { "for": "later" } })).await;
    later.claim("outcome", 1, "away").await;
    later.step("outcome", 2, json!({ "ended": { "suspended": { "for": 1 } } })).await;
    let step = json!({ "version": 2, "nonce": "later", "change": "cancelled" });
    later.write("$KV.ms_jobs.job.version.1".to_owned(), step).await;
    later.claim("gone", 1, "away").await;
    later.claim("held", 1, "holder").await;
}

/// The job, once this holds.
async fn job(queue: &Queue, name: &str, holds: impl Fn(&JobState) -> bool) -> JobState {
    let mut follow = queue.follow(&id(name)).await.unwrap();
    let reading = async {
        loop {
            let job = follow.next().await.unwrap();
            if holds(&job) {
                return job;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect(name)
}

fn has_ended(job: &JobState) -> bool {
    job.outcome().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_alone_what_a_later_version_wrote() {
    let server = One::start().await;
    let (queue, later) = (server.queue().await, Later::connect(&server).await);
    submit_all(&later).await;
    let holder = later.clone();
    let _holding = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut renewals = tokio::time::interval(Duration::from_secs(2));
        loop {
            renewals.tick().await;
            holder.renew("holder").await;
        }
    }));
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::new("old".parse().unwrap(), directory.path().join("w"));
    options.slots = 4;
    let (runs, drain) = (Counted::default(), CancellationToken::new());
    let (events, _reports) = tokio::sync::mpsc::unbounded_channel::<Event>();
    let work = worker::run_in(queue.clone(), options, runs.clone(), drain.clone(), events);
    let work = tokio::spawn(work);

    job(&queue, "plain", has_ended).await;
    // The worker "away" is lost after 15 s. Then its other job would be claimed too.
    let gone = job(&queue, "gone", has_ended).await;
    assert_eq!((gone.attempt, gone.has_unknown_step), (2, false));
    let count = |job: &str| runs.0.lock().unwrap().get(&id(job)).copied().unwrap_or_default();
    assert_eq!(["plain", "gone"].map(count), [1, 1]);
    assert_eq!(["reserved", "outcome", "version", "held", "request"].map(count), [0; 5]);
    for (name, steps) in
        [("reserved", 2), ("outcome", 3), ("version", 2), ("held", 2), ("request", 1)]
    {
        assert_eq!(later.steps(name).await.len(), steps, "{name} has another step");
    }

    // A client of this version shows what it can.
    let view = queue.view().await.unwrap();
    assert_eq!(view.unknown().collect::<Vec<_>>(), [&id("request")]);
    assert!(queue.workers().await.unwrap().iter().any(|(w, _)| w.state == WorkerState::Unknown));
    let outcome = job(&queue, "outcome", has_ended).await;
    assert_eq!(outcome.outcome(), Some(&Outcome::Unknown));
    let submitted = queue.job(&id("request")).await;
    assert!(matches!(submitted, Err(ReadError::Later(_))), "{submitted:?}");
    assert_eq!(queue.cancel(&id("version")).await.unwrap(), Cancelled::Running);

    // The result of a later worker is a result, whatever it wrote before.
    assert!(job(&queue, "reserved", |_| true).await.is_of_later_version());
    later.claim("reserved", 2, "holder").await;
    let finished = json!({ "finished": { "status": 7, "log": 0, "cost": 1 } });
    later.step("reserved", 3, json!({ "ended": finished })).await;
    let reserved = job(&queue, "reserved", has_ended).await;
    assert!(matches!(reserved.outcome(), Some(Outcome::Finished { status: 7, .. })));

    drain.cancel();
    work.await.unwrap().unwrap();
    assert_eq!(queue.prune(|_| true).await.unwrap().len(), 4);
    for (name, steps) in [("version", 2), ("held", 2), ("request", 1)] {
        assert_eq!(later.steps(name).await.len(), steps, "{name} was removed");
    }
}
