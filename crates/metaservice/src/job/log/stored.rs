//! A log that another process has stored.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use metaservice_protocol::LogOutput;

use super::files::Files;
use super::reader::{LogFrom, LogReader, Readers};
use super::ring::ENDLESS;
use super::segments::{Segments, milliseconds};
use super::shared::Shared;

/// A log that a service has stored in two files, for readers after its end.
///
/// A service writes them if its builder has [`keep_log_in`](crate::Builder::keep_log_in). The file
/// `log` has the last bytes of the log, as many as [`keep_log`](crate::Builder::keep_log) says:
/// byte `n` is at `n` modulo this number. The file `index` has the size and the length of the log,
/// and says which output each byte is of and when it arrived. It has at most 17 MiB.
///
/// Any content of the files can be read. If the process that writes them is killed, they have
/// everything that it has shown. If the host loses power, bytes whose record is lost count as
/// stdout, with the last time that is known. The same holds for bytes whose record was overwritten:
/// the index has room for the last million changes of the output or of the time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let file = || tempfile::tempfile();
/// # let (log, index) = (file()?, file()?);
/// use metaservice::{LogFrom, LogOutput, StoredLog};
///
/// let mut reader = StoredLog::open(log, index)?.reader(LogFrom::Tail(20)).await?;
/// while let Some(segment) = reader.next_segment().await? {
///     if segment.output == LogOutput::Stderr {
///         println!("{:?}: {} bytes", segment.time, segment.bytes.len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StoredLog {
    readers: Readers,
}

impl StoredLog {
    /// Opens a stored log for reading. Blocks: reads the index, at most 17 MiB.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn open(log: File, index: File) -> io::Result<Self> {
        let shared = Shared::complete(Files::find(log, index)?);
        Ok(Self { readers: Readers::new(Arc::new(shared)) })
    }

    /// The length of the log, with the bytes that are no longer kept.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.readers.end()
    }

    /// A reader from `from` on, to the end of the log.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub async fn reader(&self, from: LogFrom) -> io::Result<LogReader> {
        self.readers.open(from, false).await
    }
}

/// Writes the two files of a [`StoredLog`], for a log that comes from elsewhere than a service.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use metaservice::{LogFrom, LogOutput, StoredLog, StoredLogWriter};
///
/// let (log, index) = (tempfile::tempfile()?, tempfile::tempfile()?);
/// let mut writer = StoredLogWriter::create(log.try_clone()?, index.try_clone()?, 1 << 20)?;
/// writer.write(LogOutput::Stdout, None, "out\n".into())?;
/// writer.write(LogOutput::Stderr, None, "error\n".into())?;
///
/// let mut reader = StoredLog::open(log, index)?.reader(LogFrom::Start).await?;
/// reader.next_segment().await?;
/// let second = reader.next_segment().await?.expect("it was written");
/// assert_eq!((second.output, &second.bytes[..]), (LogOutput::Stderr, &b"error\n"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StoredLogWriter {
    files: Files,
    segments: Segments,
    end: u64,
}

impl StoredLogWriter {
    /// Empties the files, for a log of which the last `keep` bytes are kept. A zero counts as one.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn create(log: File, index: File, keep: u64) -> io::Result<Self> {
        let files = Files::create(log, index, keep.clamp(1, ENDLESS - 1))?;
        Ok(Self { files, segments: Segments::default(), end: 0 })
    }

    /// Adds bytes of an output, which arrived at this time. `None`: it is not known. Blocks.
    ///
    /// # Errors
    /// If the files cannot be written. Then they do not have the whole log.
    pub fn write(
        &mut self,
        output: LogOutput,
        time: Option<SystemTime>,
        bytes: Bytes,
    ) -> io::Result<()> {
        let time_ms = time.map_or(0, milliseconds);
        let batch = self.segments.batch(vec![(output, bytes)], time_ms, self.end);
        self.files.write(&batch)?;
        self.end = batch.end();
        Ok(())
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
