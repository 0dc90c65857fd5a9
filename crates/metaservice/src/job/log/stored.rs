//! A log that another process has stored.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::files::Files;
use super::reader::{LogFrom, LogReader, Readers};
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

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
