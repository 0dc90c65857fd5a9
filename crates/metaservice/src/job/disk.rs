//! Where the service does blocking work on files.

use std::io;

use tokio::task::JoinHandle;

/// Where the service reads and writes its files: those of the
/// [state directory](crate::Builder::state) and of the
/// [temporary directory](crate::Builder::temporary_directory).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskWork {
    /// On the runtime's threads for blocking work: a slow disk delays no other task.
    #[default]
    Threads,
    /// On the runtime's own thread, for runs that must be reproducible: with simulated time, no two
    /// things then happen at the same moment.
    InPlace,
}

/// Blocking work that was started.
#[derive(Debug)]
pub(crate) enum Working<T> {
    Thread(JoinHandle<io::Result<T>>),
    Done(io::Result<T>),
}

impl DiskWork {
    /// Starts blocking work. If the returned value is dropped, the work continues.
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
