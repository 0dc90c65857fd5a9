//! Where a service's blocking work on files is done.

use std::io;

use tokio::task::JoinHandle;

/// Where the service reads and writes its files: the [state](crate::Builder::state) and what lies
/// in the [temporary folder](crate::Builder::temporary_folder).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskWork {
    /// On the runtime's threads for blocking work: a slow disk delays nobody else.
    #[default]
    Threads,
    /// Where it comes up, on the runtime's own thread. For runs that must go the same way each
    /// time: on simulated time nothing then happens at the same moment as something else.
    InPlace,
}

/// Blocking work that has begun.
#[derive(Debug)]
pub(crate) enum Working<T> {
    Thread(JoinHandle<io::Result<T>>),
    Done(io::Result<T>),
}

impl DiskWork {
    /// Begins blocking work. Dropped, what was begun goes on.
    pub(crate) fn begin<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Working<T> {
        match self {
            Self::Threads => Working::Thread(tokio::task::spawn_blocking(work)),
            Self::InPlace => Working::Done(work()),
        }
    }

    /// Does blocking work.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.begin(work).finish().await
    }
}

impl<T> Working<T> {
    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Thread(task) => task.is_finished(),
            Self::Done(_) => true,
        }
    }

    pub(crate) async fn finish(self) -> io::Result<T> {
        match self {
            Self::Thread(task) => task.await.map_err(io::Error::other)?,
            Self::Done(result) => result,
        }
    }
}
