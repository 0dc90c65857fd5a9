//! The two files of a stored log: a [ring](super::ring) of bytes and its [index](super::index).

use std::fs::File;
use std::io;

use bytes::Bytes;
use metaservice_protocol::LogOutput;

use super::index::{Header, Index, Known};
use super::ring::{ENDLESS, READ, Ring};
use super::segments::{Batch, LogSegment, Segments, split};

/// Of files without a header.
const NOTHING: Header = Header { size: ENDLESS, end: 0, count: 0 };

/// How many segments are read at once.
const MAX_SEGMENTS: usize = 4096;

#[derive(Debug)]
pub(super) struct Files {
    pub(super) ring: Ring,
    pub(super) index: Index,
}

/// Files that were written by another process.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) files: Files,
    pub(super) known: Known,
    /// The length of the log.
    pub(super) end: u64,
}

impl Files {
    pub(super) fn new(log: File, index: File, size: u64) -> Self {
        Self { ring: Ring { file: log, size }, index: Index { file: index } }
    }

    /// Empty files for a ring of `size` bytes. What was in them is lost.
    pub(super) fn create(log: File, index: File, size: u64) -> io::Result<Self> {
        log.set_len(0)?;
        index.set_len(0)?;
        Ok(Self::new(log, index, size))
    }

    pub(super) fn write(&self, batch: &Batch) -> io::Result<()> {
        let mut place = batch.offset;
        for chunk in &batch.chunks {
            self.ring.write(place, chunk)?;
            place += chunk.len() as u64;
        }
        let header = Header { size: self.ring.size, end: batch.end(), count: batch.count() };
        self.index.write(batch.number, &batch.segments, header)
    }

    /// Reads bytes of `offset..end` as segments: at least one byte.
    pub(super) fn read_segments(
        &self,
        known: &Known,
        offset: u64,
        end: u64,
    ) -> io::Result<Vec<LogSegment>> {
        let end = end.min(offset.saturating_add(READ));
        let (segments, end) = self.index.segments(known, offset..end, MAX_SEGMENTS)?;
        let bytes = Bytes::from(self.ring.read(offset, end - offset)?);
        Ok(split(bytes, offset, &segments).collect())
    }

    /// Files that were written by another process, whatever is in them.
    pub(super) fn find(log: File, index: File) -> io::Result<Found> {
        let there = log.metadata()?.len();
        let index = Index { file: index };
        let header = index.header()?.unwrap_or(NOTHING);
        let (size, end) = match header {
            // The last bytes may be there without their header.
            Header { size: ENDLESS, .. } => (ENDLESS, there),
            Header { size, end, .. } if end <= size => (size, end.min(there)),
            Header { size, end, .. } if size == there => (size, end),
            // It was cut. What is left has lost its order.
            Header { .. } => (ENDLESS, there),
        };
        let known = index.examine(header, end)?;
        Ok(Found { files: Self { ring: Ring { file: log, size }, index }, known, end })
    }

    /// Continues an endless log. Its first `length` bytes are there.
    pub(super) fn resume(log: File, index: File, length: u64) -> io::Result<(Found, Segments)> {
        let index = Index { file: index };
        let header = index.header()?.unwrap_or(NOTHING);
        let mut known = index.examine(header, length)?;
        let last = index.truncate(&mut known, length)?;
        let mut segments = Segments::resume(known.records.end, last);
        let number = known.records.end;
        // What comes after the intact records is not known.
        let unknown = (known.covered < length)
            .then(|| segments.note(LogOutput::Stdout, known.time_ms, known.covered))
            .flatten();
        let files = Self { ring: Ring { file: log, size: ENDLESS }, index };
        let header = Header { size: ENDLESS, end: length, count: segments.count() };
        files.index.write(number, unknown.as_slice(), header)?;
        known.records.end = segments.count();
        known.covered = u64::MAX;
        Ok((Found { files, known, end: length }, segments))
    }
}
