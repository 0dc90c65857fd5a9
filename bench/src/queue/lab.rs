//! A server, and workers in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, Settings};
use metaservice_fleet::request::Request;
use metaservice_fleet::server::LocalServer;
use metaservice_fleet::step::Outcome;
use metaservice_fleet::worker::{self, Event, Options, Run, Runner, Running, Warm};
use metaservice_private::lock;
use metaservice_sandbox::spec::JobSpec;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The longest time for one sample.
const SAMPLE: Duration = Duration::from_secs(600);

/// A server without jobs. It ends with this value, and its data with it.
pub(super) struct Lab {
    pub(super) queue: Queue,
    _server: LocalServer,
    directory: TempDir,
}

impl Lab {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let server = LocalServer::start(&directory.path().join("server")).await?;
        let queue = Queue::connect(&Settings::new(server.url())).await?;
        Ok(Self { queue, _server: server, directory })
    }

    pub(super) fn options(&self, slots: u32) -> anyhow::Result<Options> {
        let directory = self.directory.path().join("worker");
        Ok(Options { slots, ..Options::new("bench".parse()?, directory) })
    }

    /// A worker whose jobs have no machines. It has read the queue when this returns.
    pub(super) async fn simulate(&self, slots: u32, runs: &Runs) -> anyhow::Result<Worker> {
        let drain = CancellationToken::new();
        let (sender, events) = unbounded_channel();
        let (queue, options) = (self.queue.clone(), self.options(slots)?);
        let work = worker::run_in(queue, options, runs.clone(), drain.clone(), sender);
        let worker = Worker { events, drain, task: AbortOnDropHandle::new(tokio::spawn(work)) };
        worker.ready().await
    }

    /// A worker with machines. It has read the queue when this returns.
    pub(super) async fn work(&self, slots: u32, warm: Vec<Warm>) -> anyhow::Result<Worker> {
        let drain = CancellationToken::new();
        let (sender, events) = unbounded_channel();
        let options = Options { warm, ..self.options(slots)? };
        let work = worker::run(self.queue.clone(), options, drain.clone(), sender);
        let worker = Worker { events, drain, task: AbortOnDropHandle::new(tokio::spawn(work)) };
        worker.ready().await
    }

    /// Waits for the result of a job, which is an exit status of zero.
    pub(super) async fn success(&self, id: &JobId) -> anyhow::Result<()> {
        let mut follow = self.queue.follow(id).await?;
        loop {
            if let Some(outcome) = follow.next().await?.outcome() {
                return success(outcome);
            }
        }
    }
}

fn success(outcome: &Outcome) -> anyhow::Result<()> {
    let is_success = matches!(outcome, Outcome::Finished { status: 0, .. });
    ensure!(is_success, "a job failed: {outcome:?}");
    Ok(())
}

/// Takes a sample with a server of its own.
pub(super) fn sample<T>(work: impl AsyncFnOnce(&Lab) -> anyhow::Result<T>) -> anyhow::Result<T> {
    Runtime::new()?.block_on(async {
        let lab = Lab::start().await?;
        let done = tokio::time::timeout(SAMPLE, work(&lab)).await;
        done.context("the sample did not end in time")?
    })
}

/// A worker. It ends with this value.
pub(super) struct Worker {
    events: UnboundedReceiver<Event>,
    drain: CancellationToken,
    task: AbortOnDropHandle<Result<worker::Summary, worker::WorkerError>>,
}

impl Worker {
    async fn ready(mut self) -> anyhow::Result<Self> {
        self.event(|event| matches!(event, Event::Ready).then_some(())).await?;
        Ok(self)
    }

    /// The next event that is wanted.
    pub(super) async fn event<T>(
        &mut self,
        wanted: impl Fn(&Event) -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            let event = self.events.recv().await.context("the worker has ended")?;
            if let Some(wanted) = wanted(&event) {
                return Ok(wanted);
            }
        }
    }

    /// Waits until so many jobs have ended with success.
    pub(super) async fn succeeded(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let outcome = |event: &Event| match event {
                Event::Ended { outcome, .. } => Some(outcome.clone()),
                _ => None,
            };
            success(&self.event(outcome).await?)?;
        }
        Ok(())
    }

    /// Ends it in order.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.drain.cancel();
        self.task.await??;
        Ok(())
    }
}

/// Runs of a known time without a machine, and when each began.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    /// How long each takes.
    pub(super) takes: Duration,
    begun: Arc<Mutex<HashMap<JobId, Instant>>>,
}

impl Runs {
    pub(super) fn of(takes: Duration) -> Self {
        Self { takes, ..Self::default() }
    }

    pub(super) fn begun(&self, id: &JobId) -> Option<Instant> {
        lock(&self.begun).get(id).copied()
    }
}

impl Runner for Runs {
    fn run(&self, run: Run) -> Running {
        lock(&self.begun).insert(run.id.clone(), Instant::now());
        let takes = self.takes;
        Box::pin(async move {
            let _outputs = run;
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(0)
        })
    }
}

/// A job of the command.
pub(super) fn job(words: &[&str]) -> Request {
    let mut request = Request::new(JobSpec::new(words.iter().copied()));
    request.spec.machine.memory.0 = 128 << 20;
    request
}
