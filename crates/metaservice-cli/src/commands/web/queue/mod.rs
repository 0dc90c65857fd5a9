//! The jobs of a queue, for the page.

mod error;
mod log;
mod rows;
mod tracker;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use metaservice::StoredLog;
use metaservice::control::Client;
use metaservice_fleet::history::Attempt;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError};
use metaservice_fleet::request::Request;
use metaservice_fleet::state::{JobState, Phase};
use metaservice_fleet::step::Outcome;
use metaservice_fleet::tunnel::Portal;
use metaservice_fleet::why_waiting::why;
use metaservice_web::{
    ArtifactBody, EndedJob, Fleet, Found, Image, Listing, Place, Reached, Source, SourceError,
    Trust, WaitingJob,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use self::error::failed;
use self::log::{AttemptKey, Fetched};
use self::tracker::Tracker;
use super::spec;
use crate::commands::fleet::waiting::words;
use crate::commands::fleet::{QueueArgs, StoreArgs, Stores};

/// The most ways to jobs that are open.
const MAX_WAYS: usize = 16;

/// The bytes of an artifact between the store and the browser.
const PIPE: usize = 256 * 1024;

/// The jobs of a queue.
pub(super) struct OfQueue {
    queue: Queue,
    address: String,
    stores: Arc<Stores>,
    tracker: Tracker,
    ways: Mutex<VecDeque<(AttemptKey, Arc<Portal>)>>,
    logs: Fetched,
}

impl OfQueue {
    pub(super) async fn connect(args: &QueueArgs, store: &StoreArgs) -> Result<Self> {
        let queue = args.connect().await?;
        let stores = Arc::new(Stores::open(&queue, store)?);
        Ok(Self {
            queue,
            address: args.shown(),
            stores,
            tracker: Tracker::default(),
            ways: Mutex::default(),
            logs: Fetched::default(),
        })
    }

    async fn state(&self, name: &str) -> Result<(JobId, JobState), SourceError> {
        self.history(name).await.map(|(id, job, _)| (id, job))
    }

    /// The job, and its attempts.
    async fn history(&self, name: &str) -> Result<(JobId, JobState, Vec<Attempt>), SourceError> {
        let id: JobId = name.parse().map_err(|_| SourceError::NotFound)?;
        let read = async {
            let mut follow = self.queue.follow(&id).await?;
            let job = follow.next().await?;
            Ok((job, follow.attempts().to_vec()))
        };
        match read.await {
            Ok((job, attempts)) => Ok((id, job, attempts)),
            Err(ReadError::NoJob(_)) => Err(SourceError::NotFound),
            Err(error) => Err(failed(error)),
        }
    }

    /// The way to an attempt that runs. It stays open for the next requests.
    fn way(&self, id: &JobId, attempt: u32) -> Result<Arc<Portal>, SourceError> {
        let key = (id.clone(), attempt);
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ways.iter().position(|(known, _)| *known == key)
            && let Some(way) = ways.remove(at)
        {
            ways.push_back(way.clone());
            return Ok(way.1);
        }
        let portal = Portal::to_attempt(&self.queue, id, attempt).map_err(failed)?;
        let portal = Arc::new(portal);
        while ways.len() >= MAX_WAYS {
            ways.pop_front();
        }
        ways.push_back((key, Arc::clone(&portal)));
        Ok(portal)
    }

    /// A job that waits, and why.
    async fn waiting(&self, id: &JobId, job: &JobState, attempts: &[Attempt]) -> WaitingJob {
        let mut waiting = WaitingJob::of(rows::describe(id, job));
        waiting.spec = rows::spec(job);
        waiting.attempts = rows::attempts(job, attempts);
        // Without an answer, the job is shown without a reason.
        if let Ok((crew, time)) = self.queue.crew().await {
            let tenant = self.tracker.tenant(&job.request.tenant);
            waiting.why = why(job, &crew, tenant, time).map(|reason| words(&reason, job));
        }
        waiting
    }
}

impl Source for OfQueue {
    fn place(&self) -> Place {
        Place::Queue(self.address.clone())
    }

    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError> {
        let (queue, tracker) = (self.queue.clone(), self.tracker.clone());
        Box::pin(async move { failed(tracker.follow_jobs(&queue, &lists).await) })
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        attempt: Option<u32>,
    ) -> BoxFuture<'a, Result<Found, SourceError>> {
        Box::pin(async move {
            let (id, job, attempts) = self.history(name).await?;
            if let Some(number) = attempt {
                let one = attempts.iter().find(|attempt| attempt.number == number);
                let one = one.ok_or(SourceError::NotFound)?;
                // That with the result is the job as it is.
                if one.ended.is_some() && (number < job.attempt || job.outcome().is_none()) {
                    let ended = rows::ended_attempt(&id, &job, &attempts, one);
                    return Ok(Found::Ended(Box::new(ended)));
                }
            }
            Ok(match job.phase {
                Phase::Waiting { .. } => {
                    Found::Waiting(Box::new(self.waiting(&id, &job, &attempts).await))
                }
                Phase::Running { .. } => {
                    let way = self.way(&id, job.attempt)?;
                    let client = Client::new(way.client_path());
                    let started = rows::started(&job);
                    let reached = Reached::by(client, way, id.to_string(), started);
                    Found::Running(reached.with_attempts(rows::attempts(&job, &attempts)))
                }
                Phase::Ended { .. } => Found::Ended(Box::new(rows::ended(&id, &job, &attempts))),
                _ => return Err(SourceError::Unsupported),
            })
        })
    }

    fn log<'a>(
        &'a self,
        job: &'a EndedJob,
    ) -> BoxFuture<'a, Result<Option<StoredLog>, SourceError>> {
        Box::pin(async move {
            if job.attempt == 0 {
                return Ok(None);
            }
            let (id, state) = self.state(&job.job.name).await?;
            let whole = match state.outcome() {
                Some(Outcome::Finished { log_object, .. }) if state.attempt == job.attempt => {
                    log_object.as_ref()
                }
                _ => None,
            };
            let key = (id, job.attempt);
            self.logs.log(&self.queue, &self.stores, &key, whole).await.map(Some)
        })
    }

    fn run(&self, spec: Value, trust: Trust) -> BoxFuture<'_, Result<String, SourceError>> {
        Box::pin(async move { self.submit(Request::new(spec::read(spec)?), trust).await })
    }

    fn retry<'a>(
        &'a self,
        job: &'a EndedJob,
        trust: Trust,
    ) -> BoxFuture<'a, Result<String, SourceError>> {
        Box::pin(async move {
            let (_, state) = self.state(&job.job.name).await?;
            let mut request = (*state.request).clone();
            if request.sealed.is_some() {
                let text = "the job has secrets, which are for its own id: submit it again";
                return Err(SourceError::Refused(text.to_owned()));
            }
            // Both times were meant for the first job.
            (request.not_before, request.deadline) = (None, None);
            self.submit(request, trust).await
        })
    }

    fn cancel<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            let id: JobId = name.parse().map_err(|_| SourceError::NotFound)?;
            self.queue.cancel(&id).await.map(drop).map_err(failed)
        })
    }

    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async { Err(SourceError::Unsupported) })
    }

    fn prune(&self, _: Duration) -> BoxFuture<'_, Result<usize, SourceError>> {
        Box::pin(async { Err(SourceError::Unsupported) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, SourceError>> {
        // Each worker has its own.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn artifact<'a>(
        &'a self,
        job: &'a EndedJob,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ArtifactBody, SourceError>> {
        Box::pin(async move {
            let (_, state) = self.state(&job.job.name).await?;
            let Some(Outcome::Finished { artifacts, .. }) = state.outcome() else {
                return Err(SourceError::NotFound);
            };
            let index = rows::artifact_index(name).ok_or(SourceError::NotFound)?;
            let artifact = artifacts.get(index).and_then(|artifact| artifact.object.clone());
            let object = artifact.ok_or(SourceError::NotFound)?;
            let (stores, (reader, mut writer)) =
                (Arc::clone(&self.stores), tokio::io::duplex(PIPE));
            let reading = async move {
                let got = stores.get(&object, &mut writer).await;
                got.map_err(|error| std::io::Error::other(format!("{error:#}")))
            };
            // The error comes after the bytes, so that a body that is not complete is cut.
            let end = futures_util::stream::once(reading)
                .filter_map(async |got: std::io::Result<()>| got.err().map(Err));
            let bytes = ReaderStream::new(reader);
            Ok(futures_util::stream::select(bytes, end).boxed())
        })
    }

    fn fleet(&self, states: watch::Sender<Fleet>) -> Option<BoxFuture<'static, SourceError>> {
        let (queue, tracker) = (self.queue.clone(), self.tracker.clone());
        Some(Box::pin(async move { failed(tracker.follow_fleet(&queue, &states).await) }))
    }
}

impl OfQueue {
    async fn submit(&self, request: Request, trust: Trust) -> Result<String, SourceError> {
        use metaservice_fleet::queue::{RoomError, SubmitError};
        let refused = |error: &dyn std::error::Error| SourceError::Refused(error.to_string());
        if trust == Trust::User {
            spec::check_rules(&request.spec)?;
        }
        let id = JobId::random();
        match self.queue.check_room(&request.tenant, &[&id]).await {
            Ok(()) => {}
            Err(error @ RoomError::Full { .. }) => return Err(refused(&error)),
            Err(error) => return Err(failed(error)),
        }
        match self.queue.submit(&id, &request).await {
            Ok(_) => Ok(id.to_string()),
            Err(error @ SubmitError::Invalid(_)) => Err(refused(&error)),
            Err(error) => Err(failed(error)),
        }
    }
}
