//! The jobs of a queue, for the page.

mod rows;
mod tracker;

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use metaservice::StoredLog;
use metaservice::control::Client;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError};
use metaservice_fleet::request::Request;
use metaservice_fleet::state::{JobState, Phase};
use metaservice_fleet::step::Outcome;
use metaservice_fleet::tunnel::Portal;
use metaservice_web::{
    ArtifactBody, EndedJob, Fleet, Found, Image, Listing, Place, Reached, Source, SourceError,
    Trust,
};
use serde_json::Value;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use self::tracker::Tracker;
use super::spec;
use crate::commands::fleet::{QueueArgs, StoreArgs, Stores};

/// The most ways to jobs that are open.
const MAX_WAYS: usize = 16;

/// The most logs of ended jobs that are kept for readers. Each is a file without a name.
const MAX_LOGS: usize = 8;

/// The bytes of an artifact between the store and the browser.
const PIPE: usize = 256 * 1024;

/// An attempt of a job.
type AttemptKey = (JobId, u32);

/// The jobs of a queue.
pub(super) struct OfQueue {
    queue: Queue,
    address: String,
    stores: Arc<Stores>,
    tracker: Tracker,
    ways: Mutex<VecDeque<(AttemptKey, Arc<Portal>)>>,
    logs: Mutex<VecDeque<(AttemptKey, File)>>,
    /// One log is fetched at a time: the pages of a job share its file.
    fetching: tokio::sync::Mutex<()>,
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
            logs: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    async fn state(&self, name: &str) -> Result<(JobId, JobState), SourceError> {
        let id: JobId = name.parse().map_err(|_| SourceError::NotFound)?;
        match self.queue.job(&id).await {
            Ok(Some(job)) => Ok((id, job)),
            Ok(None) => Err(SourceError::NotFound),
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

    /// The file with the log of a job that has ended.
    async fn log_file(&self, id: &JobId, job: &JobState) -> Result<File, SourceError> {
        let key = (id.clone(), job.attempt);
        let _fetching = self.fetching.lock().await;
        if let Some(file) = self.kept_log(&key) {
            return Ok(file);
        }
        let file = tempfile::tempfile().map_err(failed)?;
        let mut to = tokio::fs::File::from_std(file.try_clone().map_err(failed)?);
        self.fetch_log(id, job, &mut to)
            .await
            .map_err(|error| SourceError::Failed(error.into()))?;
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        while logs.len() >= MAX_LOGS {
            logs.pop_front();
        }
        let kept = file.try_clone().map_err(failed)?;
        logs.push_back((key, kept));
        Ok(file)
    }

    fn kept_log(&self, key: &AttemptKey) -> Option<File> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let at = logs.iter().position(|(known, _)| known == key)?;
        let used = logs.remove(at)?;
        let file = used.1.try_clone().ok();
        logs.push_back(used);
        file
    }

    /// Writes the log to a file: that of the queue, or that of the store if the queue does not have
    /// all of it.
    async fn fetch_log(&self, id: &JobId, job: &JobState, to: &mut tokio::fs::File) -> Result<()> {
        let mut reader = self.queue.log(id, job.attempt).await?;
        let (mut begun, mut gap) = (false, false);
        loop {
            match reader.try_next().await {
                Ok(Some(chunk)) => to.write_all(&chunk.bytes).await?,
                Ok(None) => break,
                Err(ReadError::Gap { .. }) => gap = true,
                Err(error) => return Err(error.into()),
            }
            begun = true;
        }
        if (gap || !begun)
            && let Some(Outcome::Finished { log_object: Some(object), .. }) = job.outcome()
        {
            to.flush().await?;
            to.set_len(0).await?;
            to.rewind().await?;
            self.stores.get(object, to).await?;
        }
        Ok(to.flush().await?)
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    SourceError::Failed(error.into())
}

impl Source for OfQueue {
    fn place(&self) -> Place {
        Place::Queue(self.address.clone())
    }

    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError> {
        let (queue, tracker) = (self.queue.clone(), self.tracker.clone());
        Box::pin(async move { failed(tracker.follow_jobs(&queue, &lists).await) })
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Found, SourceError>> {
        Box::pin(async move {
            let (id, job) = self.state(name).await?;
            Ok(match job.phase {
                Phase::Waiting { .. } => Found::Waiting(Box::new(rows::describe(&id, &job))),
                Phase::Running { .. } => {
                    let way = self.way(&id, job.attempt)?;
                    let client = Client::new(way.client_path());
                    let started = rows::started(&job);
                    Found::Running(Reached::by(client, way, id.to_string(), started))
                }
                Phase::Ended { .. } => Found::Ended(Box::new(rows::ended(&id, &job))),
                _ => return Err(SourceError::Unsupported),
            })
        })
    }

    fn log<'a>(
        &'a self,
        job: &'a EndedJob,
    ) -> BoxFuture<'a, Result<Option<StoredLog>, SourceError>> {
        Box::pin(async move {
            let (id, state) = self.state(&job.job.name).await?;
            if state.attempt == 0 {
                return Ok(None);
            }
            let file = self.log_file(&id, &state).await?;
            // Without an index, all of it is stdout: the queue keeps no times.
            let index = tempfile::tempfile().map_err(failed)?;
            let log = tokio::task::block_in_place(|| StoredLog::open(file, index));
            log.map(Some).map_err(failed)
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

    fn prune(&self) -> BoxFuture<'_, Result<usize, SourceError>> {
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
