//! Where the jobs of a page come from.
//!
//! A [`Source`] knows the jobs: [`listing`] is their list, [`job`] one of them, and [`fleet`] those
//! who run them. [`error`] is why something is not there.

mod error;
mod fleet;
mod job;
mod listing;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use metaservice::StoredLog;
use serde_json::Value;
use tokio::sync::watch;

pub use self::error::SourceError;
pub use self::fleet::{Depth, Fleet, FleetTenant, FleetWorker};
pub use self::job::{Artifact, Attempt, EndedJob, Found, Image, Reached, WaitingJob};
pub use self::listing::{ListedJob, Listing, MAX_JOBS};

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// This host, by its name.
    Host(String),
    /// A queue, by its address without secrets.
    Queue(String),
}

/// What a description may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Everything: the user of this host asks.
    Owner,
    /// No path of this host: one of the [`Users`](crate::Users) asks.
    User,
}

/// The bytes of an artifact.
pub type ArtifactBody = BoxStream<'static, std::io::Result<Bytes>>;

/// The jobs that a page shows: those of this host, or those of a queue.
pub trait Source: Send + Sync + 'static {
    /// What it is.
    fn place(&self) -> Place;

    /// Publishes the list of jobs at once and after each change, as long as the future is polled.
    /// While the list has no receivers, it may be old. Completes only with an error.
    fn follow(&self, lists: watch::Sender<Listing>) -> BoxFuture<'static, SourceError>;

    /// Finds a job by its name. With the number of an attempt, the job is as that attempt left it:
    /// an earlier attempt than the last one has ended. Cancel safe.
    ///
    /// # Errors
    /// [`SourceError`]: [`NotFound`](SourceError::NotFound) if there is no such attempt.
    fn find<'a>(
        &'a self,
        name: &'a str,
        attempt: Option<u32>,
    ) -> BoxFuture<'a, Result<Found, SourceError>>;

    /// Opens what is kept of the log of a job that has ended, that of its
    /// [attempt](EndedJob::attempt) if it has several. `None`: nothing.
    ///
    /// # Errors
    /// [`SourceError`].
    fn log<'a>(
        &'a self,
        job: &'a EndedJob,
    ) -> BoxFuture<'a, Result<Option<StoredLog>, SourceError>>;

    /// Starts a job of this description, and returns its name when it has begun or waits. The
    /// description is a `JobSpec` as JSON, and is not valid yet. Dropping the future may leave a
    /// job that runs.
    ///
    /// # Errors
    /// [`SourceError`]: [`Refused`](SourceError::Refused) says what is wrong with it.
    fn run(&self, spec: Value, trust: Trust) -> BoxFuture<'_, Result<String, SourceError>>;

    /// Starts a job that has ended again, and returns its name.
    ///
    /// # Errors
    /// [`SourceError`].
    fn retry<'a>(
        &'a self,
        job: &'a EndedJob,
        trust: Trust,
    ) -> BoxFuture<'a, Result<String, SourceError>>;

    /// Ends a job that has not begun: it never begins.
    ///
    /// # Errors
    /// [`SourceError`].
    fn cancel<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Removes what is kept of a job that has ended.
    ///
    /// # Errors
    /// [`SourceError`].
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SourceError>>;

    /// Removes what is kept of the jobs that ended longer ago than this, and returns how many there
    /// were.
    ///
    /// # Errors
    /// [`SourceError`].
    fn prune(&self, age: Duration) -> BoxFuture<'_, Result<usize, SourceError>>;

    /// The images that a job can use without a download.
    ///
    /// # Errors
    /// [`SourceError`].
    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, SourceError>>;

    /// Reads an artifact that was kept, by its name. The stream fails if it is not complete.
    ///
    /// # Errors
    /// [`SourceError`].
    fn artifact<'a>(
        &'a self,
        job: &'a EndedJob,
        name: &'a str,
    ) -> BoxFuture<'a, Result<ArtifactBody, SourceError>>;

    /// Publishes the workers and tenants at once and after each change, as
    /// [`follow`](Self::follow) does with the jobs. `None`: it has none.
    fn fleet(&self, states: watch::Sender<Fleet>) -> Option<BoxFuture<'static, SourceError>>;
}
