//! The logs of attempts that have ended, each in a pair of files without names.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use metaservice::{LogOutput, StoredLog, StoredLogWriter};
use metaservice_fleet::log::Stream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError};
use metaservice_fleet::step::Object;
use metaservice_web::SourceError;
use tokio::io::AsyncReadExt;

use super::error::failed;
use crate::commands::fleet::Stores;

/// The most logs that are kept for readers.
const MAX_LOGS: usize = 8;

/// The most bytes of a log that are kept: its last ones.
const MAX_LOG: u64 = 1 << 30;

/// The bytes between the store and a file.
const PIPE: usize = 256 * 1024;

/// An attempt of a job.
pub(super) type AttemptKey = (JobId, u32);

/// The logs that were fetched last.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    kept: Mutex<VecDeque<(AttemptKey, Files)>>,
    /// One log is fetched at a time: the pages of a job share its files.
    fetching: tokio::sync::Mutex<()>,
}

/// The files of a log.
#[derive(Debug)]
struct Files {
    log: File,
    index: File,
}

impl Files {
    fn new() -> std::io::Result<Self> {
        Ok(Self { log: tempfile::tempfile()?, index: tempfile::tempfile()? })
    }

    fn share(&self) -> std::io::Result<Self> {
        Ok(Self { log: self.log.try_clone()?, index: self.index.try_clone()? })
    }

    fn writer(&self) -> std::io::Result<StoredLogWriter> {
        let Self { log, index } = self.share()?;
        StoredLogWriter::create(log, index, MAX_LOG)
    }

    fn open(self) -> Result<StoredLog, SourceError> {
        tokio::task::block_in_place(|| StoredLog::open(self.log, self.index)).map_err(failed)
    }
}

impl Fetched {
    /// The log of an attempt that has ended. `whole`: where the store has it.
    pub(super) async fn log(
        &self,
        queue: &Queue,
        stores: &Stores,
        key: &AttemptKey,
        whole: Option<&Object>,
    ) -> Result<StoredLog, SourceError> {
        let _fetching = self.fetching.lock().await;
        if let Some(files) = self.find(key) {
            return files.open();
        }
        let files = Files::new().map_err(failed)?;
        let (id, attempt) = key;
        let fetched = fetch(queue, stores, id, *attempt, whole, &files).await;
        fetched.map_err(|error| SourceError::Failed(error.into()))?;
        let shared = files.share().map_err(failed)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= MAX_LOGS {
            kept.pop_front();
        }
        kept.push_back((key.clone(), shared));
        drop(kept);
        files.open()
    }

    /// A log that is kept. It was used last now.
    fn find(&self, key: &AttemptKey) -> Option<Files> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == key)?;
        let used = kept.remove(at)?;
        let files = used.1.share().ok();
        kept.push_back(used);
        files
    }
}

/// Writes the log to files: that of the queue, which knows outputs and times, or that of the store
/// if the queue does not have all of it.
async fn fetch(
    queue: &Queue,
    stores: &Stores,
    id: &JobId,
    attempt: u32,
    whole: Option<&Object>,
    files: &Files,
) -> Result<()> {
    let mut writer = files.writer()?;
    let mut reader = queue.log(id, attempt).await?;
    let (mut begun, mut gap) = (false, false);
    loop {
        let read = reader.try_next().await;
        let (output, bytes) = match read {
            Ok(Some(chunk)) => (output(chunk.stream), chunk.bytes),
            Ok(None) => break,
            Err(ReadError::Gap { from, to }) => {
                gap = true;
                (LogOutput::Stderr, missing(to - from))
            }
            Err(error) => return Err(error.into()),
        };
        begun = true;
        let time = UNIX_EPOCH + Duration::from_millis(reader.stored_at());
        tokio::task::block_in_place(|| writer.write(output, Some(time), bytes))?;
    }
    match whole {
        Some(object) if gap || !begun => copy(stores, object, files.writer()?).await,
        _ => Ok(()),
    }
}

const fn output(stream: Stream) -> LogOutput {
    match stream {
        Stream::Stdout => LogOutput::Stdout,
        Stream::Stderr => LogOutput::Stderr,
    }
}

/// The line in the place of bytes that neither the queue nor a store has.
fn missing(bytes: u64) -> Bytes {
    format!("metaservice: {bytes} bytes of the log are gone: the queue has removed them\n").into()
}

/// Writes a log of the store. It has neither outputs nor times.
async fn copy(stores: &Stores, object: &Object, mut writer: StoredLogWriter) -> Result<()> {
    let (mut from, mut to) = tokio::io::duplex(PIPE);
    let getting = async move {
        let got = stores.get(object, &mut to).await;
        // The other half ends now.
        drop(to);
        got
    };
    // It takes its half with it: if the file cannot be written, the store is not read on.
    let writing = async move {
        loop {
            let mut bytes = BytesMut::with_capacity(PIPE);
            if from.read_buf(&mut bytes).await? == 0 {
                return Ok::<_, anyhow::Error>(());
            }
            let bytes = bytes.freeze();
            let time = None::<SystemTime>;
            tokio::task::block_in_place(|| writer.write(LogOutput::Stdout, time, bytes))?;
        }
    };
    let (got, written) = tokio::join!(getting, writing);
    // A file that cannot be written also ends the reading, so this is the cause.
    written?;
    got
}
