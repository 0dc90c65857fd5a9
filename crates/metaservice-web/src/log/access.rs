//! Reads the log of a job, running or ended, in the same way.

use std::io;

use metaservice::control::{ClientError, Job, LogSegments};
use metaservice::{LogFrom, LogReader, LogSegment, StoredLog};

use crate::source::{Found, Reached, Source, SourceError};

/// A job whose log can be read.
pub(crate) enum Access {
    Running { job: Box<Job>, client: Reached },
    Ended { job: Box<Job>, log: StoredLog },
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the job does not answer")]
    Client(#[from] ClientError),
    #[error("no log of this job is kept")]
    NoLog,
    #[error("the job waits for a worker")]
    Waits,
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
}

impl Access {
    /// Finds the job, or one of its attempts. Cancel safe.
    pub(crate) async fn find(
        source: &dyn Source,
        name: &str,
        attempt: Option<u32>,
    ) -> Result<Self, AccessError> {
        match source.find(name, attempt).await? {
            Found::Running(client) => {
                let job = Box::new(client.job().await?);
                Ok(Self::Running { job, client })
            }
            Found::Waiting(_) => Err(AccessError::Waits),
            Found::Ended(ended) => match source.log(&ended).await? {
                Some(log) => Ok(Self::Ended { job: Box::new(ended.job), log }),
                None => Err(AccessError::NoLog),
            },
        }
    }

    /// When the job was started: a later job of this name is another one.
    pub(crate) fn started_ms(&self) -> u64 {
        let (Self::Running { job, .. } | Self::Ended { job, .. }) = self;
        job.started_ms
    }

    /// Whether the job has ended, so that nothing will be added to the log.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }

    /// Reads from this byte on. With `follow`, it waits at the end of a running job.
    pub(crate) async fn read(&self, offset: u64, follow: bool) -> Result<Reader, AccessError> {
        let from = LogFrom::Offset(offset);
        Ok(match self {
            Self::Running { client, .. } => {
                Reader::Running(client.log_segments(from, follow).await?)
            }
            Self::Ended { log, .. } => Reader::Ended(log.reader(from).await?),
        })
    }
}

/// A log that is being read.
pub(crate) enum Reader {
    Running(LogSegments),
    Ended(LogReader),
}

impl Reader {
    /// The next segment. Its `missed` is how many bytes before it are no longer kept. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<LogSegment>> {
        match self {
            Self::Running(log) => {
                let segment = log.next().await?;
                let missed = std::mem::take(&mut log.missed);
                Ok(segment.map(|mut segment| {
                    segment.missed = missed;
                    segment
                }))
            }
            Self::Ended(log) => log.next_segment().await,
        }
    }
}
