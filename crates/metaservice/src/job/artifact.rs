//! Files of the guest in temporary storage on the host.
//!
//! An artifact has no name: its file is unlinked before the first byte is written. So it is removed
//! with its last handle, also when the process is killed. While a thread writes one batch to the
//! disk, the next one is read from the guest.

use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use metaservice_protocol::buffer::ChunkQueue;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::job::body::next_chunk;
use crate::job::disk::{DiskWork, Working};
use crate::job::error::TransportError;
use crate::job::limits::Share;

/// How many bytes are gathered for one write.
const BATCH: usize = 256 * 1024;

/// How many bytes are gathered while a write is under way. Then the guest is held back.
const MAX_GATHERED: usize = 4 * BATCH;

/// A file of the guest, copied into temporary storage on the host: a seekable reader, positioned at
/// the beginning. The storage is freed when this is dropped, and also if the process dies.
#[derive(Debug)]
pub struct Artifact {
    file: tokio::fs::File,
    share: Share,
}

impl Artifact {
    /// The file's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.share.taken()
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The unnamed file, for synchronous reading. From now on it does not count towards
    /// [`Limits::storage`](crate::Limits::storage).
    pub async fn into_std(self) -> std::fs::File {
        self.file.into_std().await
    }

    /// The next bytes, `None` at the end.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let mut buffer = BytesMut::with_capacity(BATCH);
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(self), cx, &mut buffer))?;
        Poll::Ready(Ok((count > 0).then(|| buffer.freeze())))
    }
}

impl AsyncRead for Artifact {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for Artifact {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

/// Why a body did not become an artifact.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    Transport(TransportError),
    Storage(io::Error),
}

/// Reads a reply's body to its end, into an unnamed file in `directory`.
pub(crate) async fn receive(
    mut body: Body,
    (directory, work): (PathBuf, DiskWork),
    share: Share,
    stall: Duration,
) -> Result<Artifact, ReceiveError> {
    let mut spool = Spool::create(directory, work, share).await.map_err(ReceiveError::Storage)?;
    while let Some(chunk) = next_chunk(&mut body, stall).await.map_err(ReceiveError::Transport)? {
        spool.push(chunk).await.map_err(ReceiveError::Storage)?;
    }
    spool.finish().await.map_err(ReceiveError::Storage)
}

enum Disk {
    Idle(std::fs::File),
    Writing(Working<std::fs::File>),
    /// Between two of the others, and after an error.
    Moved,
}

/// A file that is being written.
pub(crate) struct Spool {
    work: DiskWork,
    disk: Disk,
    gathered: ChunkQueue,
    share: Share,
}

impl Spool {
    /// An unnamed file in `directory` that counts towards the storage's limit.
    pub(crate) async fn create(
        directory: PathBuf,
        work: DiskWork,
        share: Share,
    ) -> io::Result<Self> {
        let file = work.run(move || unnamed_file(&directory)).await?;
        Ok(Self { work, disk: Disk::Idle(file), gathered: ChunkQueue::default(), share })
    }

    pub(crate) async fn push(&mut self, chunk: Bytes) -> io::Result<()> {
        self.share.take(chunk.len() as u64)?;
        self.gathered.push(chunk);
        let busy = matches!(&self.disk, Disk::Writing(working) if !working.is_finished());
        let enough = if busy { MAX_GATHERED } else { BATCH };
        if self.gathered.len() >= enough {
            self.write().await?;
        }
        Ok(())
    }

    /// Waits for the write under way and begins the next one.
    async fn write(&mut self) -> io::Result<()> {
        let mut file = self.settle().await?;
        let mut gathered = std::mem::take(&mut self.gathered);
        let batch: Vec<Bytes> = std::iter::from_fn(|| gathered.pop()).collect();
        let write = move || write_vectored(&mut file, &batch).map(|()| file);
        self.disk = Disk::Writing(self.work.begin(write));
        Ok(())
    }

    async fn settle(&mut self) -> io::Result<std::fs::File> {
        match std::mem::replace(&mut self.disk, Disk::Moved) {
            Disk::Idle(file) => Ok(file),
            Disk::Writing(working) => working.finish().await,
            // An earlier write failed, and its error was returned then.
            Disk::Moved => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) async fn finish(mut self) -> io::Result<Artifact> {
        if !self.gathered.is_empty() {
            self.write().await?;
        }
        let mut file = self.settle().await?;
        io::Seek::rewind(&mut file)?;
        Ok(Artifact { file: tokio::fs::File::from_std(file), share: self.share })
    }
}

fn unnamed_file(directory: &Path) -> io::Result<std::fs::File> {
    tempfile::tempfile_in(directory)
}

fn write_vectored(file: &mut std::fs::File, batch: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
