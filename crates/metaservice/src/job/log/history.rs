//! The end of the log, kept for readers that come later.
//!
//! An unnamed file is a ring of the last bytes: byte `n` of the log is at `n` modulo its size. The
//! log's task writes it, and never waits for a reader. A reader that was overtaken learns how many
//! bytes it has missed. If the file cannot be written, the history ends with a warning, and the log
//! continues.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use metaservice_private::lock;

use bytes::Bytes;
use tokio::sync::watch;

use super::index::TimeIndex;

/// The size of one read.
const READ: u64 = 256 * 1024;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFrom {
    /// At the first byte that is kept.
    Start,
    /// This many lines before the end.
    Tail(u64),
    /// At the bytes that arrived at this time or later. The resolution is one second, less for logs of
    /// more than an hour.
    Since(SystemTime),
    /// At this byte of the log.
    Offset(u64),
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogItem {
    /// The next bytes.
    Bytes(Bytes),
    /// This many bytes are no longer kept.
    Missed(u64),
}

/// How much of the log there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    end: u64,
    /// No bytes will be added.
    complete: bool,
}

#[derive(Debug)]
struct Ring {
    file: File,
    size: u64,
}

impl Ring {
    /// The first byte that is kept if the log has `end` bytes.
    const fn first(&self, end: u64) -> u64 {
        end.saturating_sub(self.size)
    }

    /// Writes bytes at `offset`; if they are longer than the ring, their end.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let skip = bytes.len().saturating_sub(usize::try_from(self.size).unwrap_or(usize::MAX));
        let (mut offset, mut bytes) = (offset + skip as u64, &bytes[skip..]);
        while !bytes.is_empty() {
            let place = offset % self.size;
            let room = usize::try_from(self.size - place).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.file.write_all_at(now, place)?;
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Reads up to `most` bytes from `offset` on, without wrapping around.
    fn read(&self, offset: u64, most: u64) -> io::Result<Vec<u8>> {
        let place = offset % self.size;
        let length = most.min(self.size - place);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct History {
    shared: Arc<Shared>,
    failed: bool,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    index: Mutex<TimeIndex>,
    extent: watch::Sender<Extent>,
    /// The end of the write that is under way: what it overwrites is no longer kept.
    claimed: AtomicU64,
}

impl Shared {
    /// The first byte that is kept.
    fn first(&self) -> u64 {
        self.ring.first(self.claimed.load(Ordering::SeqCst))
    }

    fn index(&self) -> MutexGuard<'_, TimeIndex> {
        lock(&self.index)
    }
}

/// Creates readers of a history.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Shared>);

impl History {
    /// An empty history that keeps the last `size` bytes (at least one) in an unnamed file.
    pub(crate) fn create(directory: &Path, size: u64) -> io::Result<Self> {
        let ring = Ring { file: tempfile::tempfile_in(directory)?, size: size.max(1) };
        let shared = Shared {
            ring,
            index: Mutex::new(TimeIndex::default()),
            extent: watch::Sender::new(Extent::default()),
            claimed: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), failed: false })
    }

    pub(crate) fn readers(&self) -> Readers {
        Readers(Arc::clone(&self.shared))
    }

    /// Copies the end of an earlier log of `length` bytes. Call it first.
    pub(crate) fn refill(&self, log: &File, length: u64) -> io::Result<()> {
        let ring = &self.shared.ring;
        let mut offset = ring.first(length);
        let mut block = vec![0; usize::try_from(READ).unwrap_or(usize::MAX)];
        while offset < length {
            let rest = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let count = rest.min(block.len());
            log.read_exact_at(&mut block[..count], offset)?;
            ring.write(offset, &block[..count])?;
            offset += count as u64;
        }
        self.shared.claimed.store(length, Ordering::SeqCst);
        self.shared.extent.send_modify(|extent| extent.end = length);
        Ok(())
    }

    /// Adds bytes, in order. After a failure, nothing is added.
    pub(crate) async fn append(&mut self, chunks: Vec<Bytes>) {
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if self.failed || length == 0 {
            return;
        }
        let offset = self.shared.extent.borrow().end;
        let shared = Arc::clone(&self.shared);
        shared.claimed.store(offset + length, Ordering::SeqCst);
        let written = tokio::task::spawn_blocking(move || {
            let mut place = offset;
            for chunk in chunks {
                shared.ring.write(place, &chunk)?;
                place += chunk.len() as u64;
            }
            io::Result::Ok(())
        });
        let written = written.await.map_err(io::Error::other).and_then(|written| written);
        if let Err(error) = written {
            tracing::warn!(%error, "the log is no longer kept for later readers");
            self.failed = true;
            self.complete();
            return;
        }
        self.shared.index().note(SystemTime::now(), offset);
        self.shared.extent.send_modify(|extent| extent.end += length);
    }

    /// No bytes will be added.
    pub(crate) fn complete(&self) {
        self.shared.extent.send_modify(|extent| extent.complete = true);
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.complete();
    }
}

impl Readers {
    /// The length of the log.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.0.extent.borrow().end
    }

    /// A reader from `from` on. With `follow` it waits at the end for more.
    pub(crate) async fn open(&self, from: LogFrom, follow: bool) -> io::Result<LogReader> {
        let extent = *self.0.extent.borrow();
        let first = self.0.first().min(extent.end);
        let (position, missed) = match from {
            LogFrom::Start => (first, first),
            LogFrom::Offset(offset) => {
                (offset.clamp(first, extent.end), first.saturating_sub(offset))
            }
            LogFrom::Since(time) => {
                let offset = self.0.index().since(time, extent.end);
                (offset.max(first), first.saturating_sub(offset))
            }
            LogFrom::Tail(lines) => {
                let shared = Arc::clone(&self.0);
                let search = move || tail(&shared.ring, extent.end, lines);
                let found = tokio::task::spawn_blocking(search).await;
                (found.map_err(io::Error::other)??, 0)
            }
        };
        let receiver = self.0.extent.subscribe();
        Ok(LogReader { shared: Arc::clone(&self.0), extent: receiver, position, missed, follow })
    }
}

/// The offset of the last `lines` lines, as far as they are kept. An unfinished last line counts.
fn tail(ring: &Ring, end: u64, lines: u64) -> io::Result<u64> {
    let first = ring.first(end);
    if lines == 0 {
        return Ok(end);
    }
    let mut left = lines;
    let mut behind = end;
    while behind > first {
        // A read never wraps around: it begins at the ring's start at the earliest.
        let wrap = (behind - 1) / ring.size * ring.size;
        let from = behind.saturating_sub(READ).max(first).max(wrap);
        let piece = ring.read(from, behind - from)?;
        for (n, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = from + n as u64 + 1;
            // A newline at the log's end begins no line.
            if next == end {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(next);
            }
        }
        behind = from;
    }
    Ok(first)
}

/// A reader of a job's log. Readers are independent of each other and of the writing of the log.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    extent: watch::Receiver<Extent>,
    position: u64,
    missed: u64,
    follow: bool,
}

impl LogReader {
    /// The offset of the next byte in the log.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are missing at the beginning. A second call returns 0.
    #[cfg(feature = "control")]
    pub(crate) fn take_missed(&mut self) -> u64 {
        self.overtaken();
        std::mem::take(&mut self.missed)
    }

    /// The next bytes, or how many are missing before them. `None` at the end; a following reader
    /// reaches it when the log is complete or no longer kept. Cancel safe.
    ///
    /// # Errors
    /// If the file that keeps the log cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<LogItem>> {
        loop {
            let missed = std::mem::take(&mut self.missed);
            if missed > 0 {
                return Ok(Some(LogItem::Missed(missed)));
            }
            let extent = *self.extent.borrow_and_update();
            if self.position == extent.end {
                if extent.complete || !self.follow || self.extent.changed().await.is_err() {
                    return Ok(None);
                }
                continue;
            }
            if self.overtaken() {
                continue;
            }
            let (shared, position) = (Arc::clone(&self.shared), self.position);
            let most = (extent.end - position).min(READ);
            let read = tokio::task::spawn_blocking(move || shared.ring.read(position, most));
            let bytes = read.await.map_err(io::Error::other)??;
            // A write in the meantime may have overwritten what was read.
            if self.overtaken() {
                continue;
            }
            self.position = position + bytes.len() as u64;
            return Ok(Some(LogItem::Bytes(bytes.into())));
        }
    }

    /// Skips bytes that are no longer kept.
    fn overtaken(&mut self) -> bool {
        let end = self.extent.borrow().end;
        let first = self.shared.first().min(end);
        if self.position >= first {
            return false;
        }
        self.missed += first - self.position;
        self.position = first;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read_all(mut reader: LogReader) -> (Vec<u8>, u64) {
        let (mut bytes, mut missed) = (Vec::new(), 0);
        while let Some(item) = reader.next().await.unwrap() {
            match item {
                LogItem::Bytes(more) => bytes.extend_from_slice(&more),
                LogItem::Missed(count) => {
                    assert!(bytes.is_empty(), "without a writer no reader is overtaken");
                    missed += count;
                }
            }
        }
        (bytes, missed)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn readers_find_the_last_bytes_and_lines(
            size in 1u64..40,
            chunks in proptest::collection::vec("[ab\n]{0,12}", 0..12),
            asked in 0u64..60,
            lines in 0u64..6,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut history = History::create(&std::env::temp_dir(), size).unwrap();
                let readers = history.readers();
                let all = chunks.concat();
                for chunk in chunks {
                    history.append(vec![chunk.into()]).await;
                }
                let first = all.len().saturating_sub(usize::try_from(size).unwrap());
                let kept = all[first..].to_owned();
                let open = async |from| read_all(readers.open(from, false).await.unwrap()).await;
                prop_assert_eq!(open(LogFrom::Start).await, (kept.clone().into_bytes(), first as u64));
                let place = usize::try_from(asked).unwrap().clamp(first, all.len());
                let missed = (first as u64).saturating_sub(asked);
                prop_assert_eq!(open(LogFrom::Offset(asked)).await, (all.as_bytes()[place..].to_vec(), missed));

                let split: Vec<&str> = kept.split_inclusive('\n').collect();
                let from = split.len().saturating_sub(usize::try_from(lines).unwrap());
                prop_assert_eq!(open(LogFrom::Tail(lines)).await.0, split[from..].concat().into_bytes());
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_following_reader_sees_each_byte_and_the_end() {
        let mut history = History::create(&std::env::temp_dir(), 1000).unwrap();
        let reader = history.readers().open(LogFrom::Start, true).await.unwrap();
        let reading = tokio::spawn(read_all(reader));
        for n in 0..100u8 {
            history.append(vec![vec![n].into()]).await;
        }
        drop(history);
        assert_eq!(reading.await.unwrap(), ((0..100).collect(), 0));
    }

    #[tokio::test]
    async fn a_reader_that_was_overtaken_learns_how_much_it_missed() {
        let mut history = History::create(&std::env::temp_dir(), 10).unwrap();
        let mut reader = history.readers().open(LogFrom::Start, true).await.unwrap();
        history.append(vec!["abc".into()]).await;
        assert_eq!(reader.next().await.unwrap(), Some(LogItem::Bytes("abc".into())));
        history.append(vec!["defghijklmnopqrstuvwxyz".into()]).await;
        assert_eq!(reader.next().await.unwrap(), Some(LogItem::Missed(13)));
        let mut rest = Vec::new();
        while rest.len() < 10 {
            let Some(LogItem::Bytes(more)) = reader.next().await.unwrap() else {
                panic!("{rest:?}")
            };
            rest.extend_from_slice(&more);
        }
        assert_eq!(rest, b"qrstuvwxyz");
    }

    #[tokio::test]
    async fn a_history_that_cannot_be_written_ends_and_says_so() {
        let file = File::options().read(true).open("/dev/null").unwrap();
        let shared = Shared {
            ring: Ring { file, size: 10 },
            index: Mutex::default(),
            extent: watch::Sender::new(Extent::default()),
            claimed: AtomicU64::new(0),
        };
        let mut history = History { shared: Arc::new(shared), failed: false };
        let mut reader = history.readers().open(LogFrom::Start, true).await.unwrap();
        history.append(vec!["abc".into()]).await;
        assert_eq!(reader.next().await.unwrap(), None);
        assert!(history.failed);
    }
}
