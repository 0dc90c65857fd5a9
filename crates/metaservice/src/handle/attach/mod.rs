//! The stdin of the job's command.
//!
//! A [`JobStdin`] is the writer. What it accepts is kept in the job, and the [`feeder`] delivers
//! it to the guest, over as many connections as it takes.

mod feeder;
mod writer;

use std::sync::Arc;

use metaservice_private::lock;
use tokio_util::task::AbortOnDropHandle;

use self::feeder::Feeder;
pub use self::writer::JobStdin;
use crate::handle::service::MetaService;
use crate::job::input::Unavailable;

/// Why a client cannot attach to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The command has neither a stdin of the host nor a terminal.
    #[error("the command has no stdin to write to, and no terminal")]
    NoStdin,
    /// Another client is attached.
    #[error("another client is attached to the command's stdin")]
    Busy,
    /// The command's stdin has ended, or the command reads no more.
    #[error("the command's stdin has ended")]
    Ended,
}

impl From<Unavailable> for AttachError {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Busy => Self::Busy,
            Unavailable::Over => Self::Ended,
        }
    }
}

impl MetaService {
    /// Attaches to the stdin of the job's command, which it has with
    /// [`Builder::stdin`](crate::Builder::stdin). With a terminal and without a stdin, only the
    /// size and signals of the terminal are delivered. One caller can be attached at a time.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&self) -> Result<JobStdin, AttachError> {
        let job = &self.job;
        if !job.execute.stdin && job.execute.terminal.is_none() {
            return Err(AttachError::NoStdin);
        }
        if job.result.get().is_some() {
            return Err(AttachError::Ended);
        }
        job.input.attach()?;
        let start = || AbortOnDropHandle::new(tokio::spawn(Feeder::of(job).run()));
        lock(&job.feeder).get_or_insert_with(start);
        Ok(JobStdin::local(Arc::clone(&job.input), job.execute.stdin))
    }
}
