//! What a guest may take of its host.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use metaservice_protocol::limits::{MAX_FILES_BYTES, STALL_TIMEOUT};

/// What one guest may take of its host at most, whatever it does. A guest that wants more is held
/// back, refused or cut off, as each field says; the job's other requests are served all the while.
///
/// ```
/// use metaservice::{Bounds, MetaService};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), metaservice::StartError> {
/// let mut bounds = Bounds::default();
/// bounds.connections = 16;
/// bounds.storage = 1 << 30;
/// let service = MetaService::builder(["make", "test"]).bounds(bounds).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Connections at once, each with one request at a time; one more waits to be accepted. 1024.
    pub connections: usize,
    /// Bytes of a request's path and query: more are answered with 414. 16 KiB.
    pub line: usize,
    /// Bytes of a request's line and headers together: more are answered with 431. 16 KiB.
    pub head: usize,
    /// Headers of a request: more are answered with 431. 64.
    pub headers: usize,
    /// How long a request's head may take, from the connection's beginning or the answer before:
    /// then the connection is cut. 30 s.
    pub head_time: Duration,
    /// How long a reply that has begun may go without a byte, and how long a guest may take nothing
    /// of an answer or of a stream: then it is cut, and a reply tried again as the protocol has it. The log has no such bound: a command may be silent for hours; and
    /// lists and statistics of the extended actions have always 30 s. 30 s.
    pub stall: Duration,
    /// Bytes of the answer to a version 1 list-folder: more is refused as `InvalidPayload`. 10 MiB.
    pub list: usize,
    /// Names in the answer to a version 1 list-folder: more are refused as `InvalidPayload`.
    /// 1,000,000.
    pub names: usize,
    /// Shells and other streams at once: one more is
    /// [`ActionError::TooMany`](crate::ActionError::TooMany), to whoever wants it. 256.
    pub streams: usize,
    /// Bytes of the log: one more is a [failure](crate::MetaService::log_failed) of the log, after
    /// what came before. 64 GiB.
    pub log: u64,
    /// Bytes of a file in temporary storage, and of a file or an archive that is
    /// [read](crate::MetaService::read): one more is
    /// [`ArtifactError::Storage`](crate::ArtifactError::Storage), or
    /// [`ExtensionError::TooLarge`](crate::ExtensionError::TooLarge). 64 GiB.
    pub artifact: u64,
    /// Bytes of all files in temporary storage together, as long as their
    /// [`Artifact`](crate::Artifact)s are kept: as `artifact`. 128 GiB.
    pub storage: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 1024,
            line: 16 * 1024,
            head: 16 * 1024,
            headers: 64,
            head_time: Duration::from_secs(30),
            stall: STALL_TIMEOUT,
            list: MAX_FILES_BYTES,
            names: 1_000_000,
            streams: 256,
            log: 64 << 30,
            artifact: 64 << 30,
            storage: 128 << 30,
        }
    }
}

impl Bounds {
    /// Whether a request's line and headers are within their bounds; the status that says what is not.
    /// A connection reads somewhat more than that before it is known how long they are.
    pub(crate) fn admit_head<B>(&self, request: &http::Request<B>) -> Result<(), StatusCode> {
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

/// How much of the temporary storage is taken.
#[derive(Debug)]
pub(crate) struct Storage {
    taken: AtomicU64,
    most: u64,
}

impl Storage {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), most })
    }

    /// A file that takes nothing yet and may become `most` bytes long.
    pub(crate) fn file(self: &Arc<Self>, most: u64) -> Share {
        Share { storage: Arc::clone(self), taken: 0, most }
    }
}

/// What one file takes of the storage, until this is dropped.
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

    /// Takes more.
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
