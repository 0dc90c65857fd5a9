//! How much of the host a guest may use.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use metaservice_protocol::limits::{MAX_FILES_BYTES, STALL_TIMEOUT};

/// How much of the host one guest may use. Each field says what happens to a guest that wants more.
/// The job's other requests are served all the same.
///
/// ```
/// use metaservice::{Limits, MetaService};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), metaservice::StartError> {
/// let mut limits = Limits::default();
/// limits.connections = 16;
/// limits.storage = 1 << 30;
/// let service = MetaService::builder(["make", "test"]).limits(limits).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at a time, each with one request at a time. Another one waits. Default: 1024.
    pub connections: usize,
    /// Bytes of a request's path and query. More are an error, 414. Default: 16 KiB.
    pub line: usize,
    /// Bytes of a request's line and headers. More are an error, 431. Default: 16 KiB.
    pub head: usize,
    /// Headers of a request. More are an error, 431. Default: 64.
    pub headers: usize,
    /// How long a request's head may take, from the start of the connection or the response before.
    /// Then the connection is cut. Default: 30 s.
    pub head_time: Duration,
    /// How long a reply may send no byte, and how long a guest may read nothing of a response or a
    /// stream. Then it is cut; the protocol says which action is tried again. This does not apply
    /// to the log, because a command may be silent for hours. For lists and statistics of the
    /// extended actions it is always 30 s. Default: 30 s.
    pub stall: Duration,
    /// How long an agent that has polled may send nothing. Then it is
    /// [`Silent`](crate::Contact::Silent); nothing else follows. The time in which the machine
    /// [is paused](crate::MetaService::machine_paused) does not count. Default: 60 s.
    pub agent_lost: Duration,
    /// The same, until it is [`Dead`](crate::Contact::Dead). Decide yourself what to do with the
    /// job. Default: 5 min.
    pub agent_dead: Duration,
    /// How long there may be no request at all, also no refused one, until the contact is
    /// [`NoGuest`](crate::Contact::NoGuest). Decide yourself what to do with the job. Default:
    /// `None`, for ever.
    pub no_guest: Option<Duration>,
    /// Bytes of the reply to a `list-folder` of version 1. More are an error, `InvalidPayload`.
    /// Default: 10 MiB.
    pub list: usize,
    /// Names in the reply to a `list-folder` of version 1. More are an error, `InvalidPayload`.
    /// Default: 1,000,000.
    pub names: usize,
    /// Commands and other streams at a time. For another one, the host's call fails with
    /// [`ActionError::TooManyStreams`](crate::ActionError::TooManyStreams). Default: 256.
    pub streams: usize,
    /// Bytes of the log. One more is a [failure](crate::MetaService::log_failed) of the log; the
    /// bytes before it are written. Default: 64 GiB.
    pub log: u64,
    /// Bytes of a file or archive that is [read](crate::MetaService::read). One more is
    /// [`ReadError::TooLarge`](crate::ReadError::TooLarge). Default: 64 GiB.
    pub artifact: u64,
    /// Bytes of all files in temporary storage, as long as their [`Artifact`](crate::Artifact)s
    /// exist. One more is [`ReadError::Storage`](crate::ReadError::Storage). Default: 128 GiB.
    pub storage: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            line: 16 * 1024,
            head: 16 * 1024,
            headers: 64,
            head_time: Duration::from_secs(30),
            stall: STALL_TIMEOUT,
            agent_lost: Duration::from_secs(60),
            agent_dead: Duration::from_secs(5 * 60),
            no_guest: None,
            list: MAX_FILES_BYTES,
            names: 1_000_000,
            streams: 256,
            log: 64 << 30,
            artifact: 64 << 30,
            storage: 128 << 30,
        }
    }
}

impl Limits {
    /// Checks the length of a request's line and headers. The error is the status of the response.
    /// A connection reads somewhat more than the limit before their length is known.
    pub(crate) fn check_head<B>(&self, request: &http::Request<B>) -> Result<(), StatusCode> {
        const LINE: usize = " ".len() + " HTTP/1.1\r\n".len();
        let (uri, headers) = (request.uri(), request.headers());
        let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
        let host = uri.authority().map_or(0, |host| "http://".len() + host.as_str().len());
        if path + host > self.line {
            return Err(StatusCode::URI_TOO_LONG);
        }
        let line = request.method().as_str().len() + path + host + LINE;
        let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        if line + lines.sum::<usize>() + 2 > self.head {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Ok(())
    }
}

/// How much temporary storage a guest's files use.
#[derive(Debug)]
pub(crate) struct Storage {
    taken: AtomicU64,
    most: u64,
}

impl Storage {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), most })
    }

    /// An empty file that may become `most` bytes long.
    pub(crate) fn file(self: &Arc<Self>, most: u64) -> Share {
        Share { storage: Arc::clone(self), taken: 0, most }
    }
}

/// What one file uses of the storage, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    storage: Arc<Storage>,
    taken: u64,
    most: u64,
}

impl Share {
    /// The file's length.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Uses more.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.most - self.taken {
            let message = format!("the guest's file is larger than {} bytes", self.most);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let most = self.storage.most;
        let add = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= most);
        if self.storage.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_err() {
            let message = format!("files of this guest's take {most} bytes already");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.storage.taken.fetch_sub(self.taken, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_share_the_storage_and_give_it_back() {
        let storage = Storage::new(10);
        let (mut one, mut other) = (storage.file(7), storage.file(100));
        one.take(7).unwrap();
        assert_eq!(one.take(1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        other.take(3).unwrap();
        assert_eq!(other.take(1).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        drop(one);
        other.take(7).unwrap();
        assert_eq!(other.take(u64::MAX - 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(other.taken(), 10);
    }
}
