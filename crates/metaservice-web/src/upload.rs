//! Files that a browser sends to a guest, in parts.
//!
//! ```text
//!   parts, each a request ─► channel ─► one write of the control API ─► guest
//! ```
//!
//! Between two parts the write waits, so a browser that lost its connection continues where the
//! guest is. Nothing is kept on the host but a part. The guest replaces its file at the end alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use metaservice::Destination;
use metaservice::control::ClientError;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use crate::access::secret::Secret;
use crate::member::{Target, archived};
use crate::source::Reached;

/// The largest part, in bytes.
pub(crate) const MAX_PART: usize = 1024 * 1024;

/// The most uploads at a time.
const MAX_UPLOADS: usize = 8;

/// The most uploads whose end is kept, with those that are open.
const MAX_KEPT: usize = 256;

/// How long an upload waits for its next part.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the guest may take for a part.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an upload ends, or does not take a part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("there is no such upload: it has ended, or it waited for too long")]
    Unknown,
    #[error("another part of this upload is on its way")]
    Busy,
    #[error("the next byte of this upload is {0}")]
    Offset(u64),
    #[error("the file is longer than it was to be")]
    TooLong,
    #[error("there are {MAX_UPLOADS} uploads already")]
    TooMany,
    #[error("the guest does not take the file")]
    Silent,
    #[error("the name of the file cannot be sent")]
    Name(#[source] io::Error),
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
    #[error("the guest does not take the file")]
    Guest(#[from] ClientError),
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// The first byte that is missing.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Whether the file is in its place.
    pub(crate) done: bool,
}

/// The uploads that have not ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<BTreeMap<String, Slot>>>);

#[derive(Debug)]
enum Slot {
    Waits(Upload),
    /// A part is on its way, after this progress.
    Busy(Progress),
    /// The file is in its place since then. A browser may have lost the answer.
    Done(Progress, Instant),
}

#[derive(Debug)]
struct Upload {
    progress: Progress,
    /// `None`: all parts were sent.
    parts: Option<mpsc::Sender<Bytes>>,
    writing: AbortOnDropHandle<Result<u64, ClientError>>,
    used: Instant,
}

impl Uploads {
    /// Begins to write a file of the guest. Returns the id.
    pub(crate) fn begin(&self, client: Reached, target: Target) -> Result<String, UploadError> {
        let Target { path, member, size } = target;
        let head = member.map(|member| member.head(size)).transpose().map_err(UploadError::Name)?;
        let id = Secret::random().map_err(UploadError::Random)?.reveal().to_owned();
        let mut uploads = self.lock();
        uploads.retain(|_, slot| match slot {
            Slot::Waits(upload) => upload.used.elapsed() < IDLE_TIMEOUT,
            Slot::Busy(_) => true,
            Slot::Done(_, at) => at.elapsed() < IDLE_TIMEOUT,
        });
        let open = uploads.values().filter(|slot| !matches!(slot, Slot::Done(..))).count();
        if open >= MAX_UPLOADS {
            return Err(UploadError::TooMany);
        }
        // Of many small files, the first ends are not asked for any more.
        while uploads.len() >= MAX_KEPT {
            let ended = |slot: &Slot| if let Slot::Done(_, at) = slot { Some(*at) } else { None };
            let ends = uploads.iter().filter_map(|(id, slot)| Some((ended(slot)?, id.clone())));
            let (_, oldest) = ends.min().ok_or(UploadError::TooMany)?;
            uploads.remove(&oldest);
        }
        let (parts, receiver) = mpsc::channel(2);
        let writing = tokio::spawn(async move {
            let file = joined(receiver, size);
            let Some(head) = head else {
                let source = StreamReader::new(Box::pin(file));
                return client.write(Destination::file(path), source).await;
            };
            let source = StreamReader::new(Box::pin(archived(head, file, size)));
            client.write(Destination::directory(path), source).await
        });
        let upload = Upload {
            progress: Progress { offset: 0, size, done: false },
            parts: Some(parts),
            writing: AbortOnDropHandle::new(writing),
            used: Instant::now(),
        };
        uploads.insert(id.clone(), Slot::Waits(upload));
        Ok(id)
    }

    /// How far an upload is.
    pub(crate) fn progress(&self, id: &str) -> Result<Progress, UploadError> {
        match self.lock().get(id) {
            Some(
                Slot::Waits(Upload { progress, .. })
                | Slot::Busy(progress)
                | Slot::Done(progress, _),
            ) => Ok(*progress),
            None => Err(UploadError::Unknown),
        }
    }

    /// Adds the part from `offset` on, and waits until the guest has room for more. After the last
    /// part, it waits until the file is in its place. Dropping the future ends the upload.
    pub(crate) async fn add(
        &self,
        id: &str,
        offset: u64,
        part: Bytes,
    ) -> Result<Progress, UploadError> {
        let taken = self.take(id, offset)?;
        let busy = Busy { uploads: self, id };
        match timeout(PART_TIMEOUT, taken.add(part)).await {
            Ok(Ok(upload)) => {
                let progress = upload.progress;
                busy.put_back(match progress.done {
                    true => Slot::Done(progress, Instant::now()),
                    false => Slot::Waits(upload),
                });
                Ok(progress)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(UploadError::Silent),
        }
    }

    /// Ends an upload. The guest's file stays as it was.
    pub(crate) fn end(&self, id: &str) {
        self.lock().remove(id);
    }

    fn take(&self, id: &str, offset: u64) -> Result<Upload, UploadError> {
        let mut uploads = self.lock();
        let slot = uploads.get_mut(id).ok_or(UploadError::Unknown)?;
        let progress = match slot {
            Slot::Busy(_) => return Err(UploadError::Busy),
            Slot::Waits(upload) => upload.progress,
            Slot::Done(progress, _) => return Err(UploadError::Offset(progress.offset)),
        };
        if progress.offset != offset {
            return Err(UploadError::Offset(progress.offset));
        }
        match std::mem::replace(slot, Slot::Busy(progress)) {
            Slot::Waits(upload) => Ok(upload),
            Slot::Busy(_) | Slot::Done(..) => Err(UploadError::Busy),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    async fn add(mut self, part: Bytes) -> Result<Self, UploadError> {
        let Progress { offset, size, .. } = self.progress;
        let offset = offset.saturating_add(part.len() as u64);
        if offset > size {
            return Err(UploadError::TooLong);
        }
        let sent = match &self.parts {
            Some(parts) if !part.is_empty() => parts.send(part).await.is_ok(),
            _ => true,
        };
        self.progress.offset = offset;
        if !sent || offset == size {
            self.parts = None;
            (&mut self.writing).await.map_err(|_| UploadError::Silent)??;
            // A guest that has its file before all bytes were sent has another one.
            if !sent {
                return Err(UploadError::Silent);
            }
            self.progress.done = true;
        }
        self.used = Instant::now();
        Ok(self)
    }
}

/// Removes an upload that is busy, unless it is put back.
struct Busy<'a> {
    uploads: &'a Uploads,
    id: &'a str,
}

impl Busy<'_> {
    fn put_back(self, new: Slot) {
        // It may have been ended meanwhile.
        if let Some(slot) = self.uploads.lock().get_mut(self.id) {
            *slot = new;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut uploads = self.uploads.lock();
        if let Some(Slot::Busy(_)) = uploads.get(self.id) {
            uploads.remove(self.id);
        }
    }
}

/// The parts, as one file. It fails if they are not all of it, or the next one does not come.
fn joined(
    parts: mpsc::Receiver<Bytes>,
    size: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((parts, size), async |(mut parts, left)| {
        if left == 0 {
            return Ok(None);
        }
        match timeout(IDLE_TIMEOUT, parts.recv()).await {
            Ok(Some(part)) => {
                let left = left.saturating_sub(part.len() as u64);
                Ok(Some((part, (parts, left))))
            }
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_not_whole_is_an_error() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(sender);
        let mut whole = Box::pin(joined(receiver, 5));
        assert_eq!(whole.next().await.unwrap().unwrap(), "abc");
        let cut = whole.next().await.unwrap().unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_come_ends_the_write() {
        let (_sender, receiver) = mpsc::channel(2);
        let begin = Instant::now();
        let late = Box::pin(joined(receiver, 5)).next().await.unwrap().unwrap_err();
        assert_eq!((late.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, IDLE_TIMEOUT));
    }
}
