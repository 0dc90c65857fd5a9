//! The file with the index of a log: the records of its [segments](super::segments).
//!
//! ```text
//!   0..40    magic, size of the ring of bytes, end of the log, number of records, checksum
//!   64..     records; record `n` is at 64 + 16 * (n modulo MAX_RECORDS)
//! ```
//!
//! Numbers are little-endian. A batch is written in the order bytes, records, header. So if the
//! process is killed, the header counts only what is there. If the host loses power, any of them
//! can be lost: each has a checksum. Bytes without an intact record count as stdout.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use metaservice_protocol::LogOutput;

use super::segments::{RECORD, Segment, mix, resolution_ms};

/// How many records are kept. The bytes before the oldest one count as stdout.
pub(super) const MAX_RECORDS: u64 = 1 << 20;

/// How many records a reader leaves to a writer.
const SPARE: u64 = MAX_RECORDS / 16;

/// Where the records begin.
const RECORDS: u64 = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"MSLOGIX1");

/// How many records are read at once.
const READ: u64 = 256;

/// What the index knows about the files as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The size of the ring of bytes.
    pub(super) size: u64,
    /// The length of the log.
    pub(super) end: u64,
    /// How many records there were.
    pub(super) count: u64,
}

impl Header {
    fn encode(self) -> [u8; 40] {
        let Self { size, end, count } = self;
        let mut bytes = [0; 40];
        let numbers = [MAGIC, size, end, count, self.check()];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; 40]) -> Option<Self> {
        let mut numbers = [0; 5];
        for (number, place) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(place.try_into().ok()?);
        }
        let [magic, size, end, count, check] = numbers;
        let header = Self { size, end, count };
        (magic == MAGIC && check == header.check() && size > 0).then_some(header)
    }

    const fn check(self) -> u64 {
        mix(mix(mix(self.size) ^ self.end) ^ self.count)
    }
}

/// Which records are intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Their numbers.
    pub(super) records: Range<u64>,
    /// What comes from this byte on is not known.
    pub(super) covered: u64,
    /// The last time that is known.
    pub(super) time_ms: u64,
}

impl Known {
    /// All records up to the `count`th are intact. Another [`SPARE`] records can be written before
    /// one of them is overwritten.
    pub(super) const fn all(count: u64) -> Self {
        let records = count.saturating_sub(MAX_RECORDS - SPARE)..count;
        Self { records, covered: u64::MAX, time_ms: 0 }
    }

    /// Whether a record was overwritten when `claimed` records were written.
    pub(super) const fn is_overwritten(&self, claimed: u64) -> bool {
        claimed.saturating_sub(MAX_RECORDS) > self.records.start
    }

    const fn unknown(&self, offset: u64) -> Segment {
        Segment { offset, output: LogOutput::Stdout, time_ms: self.time_ms }
    }
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) file: File,
}

const fn place(number: u64) -> u64 {
    RECORDS + number % MAX_RECORDS * RECORD as u64
}

impl Index {
    /// Writes records, the first of which has this number, then the header.
    pub(super) fn write(
        &self,
        mut number: u64,
        segments: &[Segment],
        header: Header,
    ) -> io::Result<()> {
        let mut rest = segments;
        while !rest.is_empty() {
            let room = usize::try_from(MAX_RECORDS - number % MAX_RECORDS).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            let records: Vec<u8> = now.iter().flat_map(|segment| segment.encode()).collect();
            self.file.write_all_at(&records, place(number))?;
            number += now.len() as u64;
            rest = later;
        }
        self.file.write_all_at(&header.encode(), 0)
    }

    /// The header; `None` if it is not intact.
    pub(super) fn header(&self) -> io::Result<Option<Header>> {
        let mut bytes = [0; 40];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Header::decode(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads at least one record, and up to `most`. A record that is not intact is `None`.
    fn read(&self, number: u64, most: u64) -> io::Result<Vec<Option<Segment>>> {
        let count = most.min(READ).min(MAX_RECORDS - number % MAX_RECORDS);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(1) * RECORD];
        self.file.read_exact_at(&mut bytes, place(number))?;
        let record = |bytes: &[u8]| Segment::decode(bytes.try_into().ok()?);
        Ok(bytes.chunks_exact(RECORD).map(record).collect())
    }

    fn get(&self, number: u64) -> io::Result<Segment> {
        let record = self.read(number, 1)?.into_iter().next().flatten();
        record.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record was changed"))
    }

    /// The number of the first record that is not `before`; records that are come first.
    fn partition(
        &self,
        records: &Range<u64>,
        before: impl Fn(&Segment) -> bool,
    ) -> io::Result<u64> {
        let Range { mut start, mut end } = *records;
        while start < end {
            let middle = start + (end - start) / 2;
            if before(&self.get(middle)?) { start = middle + 1 } else { end = middle }
        }
        Ok(start)
    }

    /// The segments of `bytes`, at most `most` of them, and where they end. The first one begins at
    /// the first byte or before.
    pub(super) fn segments(
        &self,
        known: &Known,
        bytes: Range<u64>,
        most: usize,
    ) -> io::Result<(Vec<Segment>, u64)> {
        if bytes.start >= known.covered {
            return Ok((vec![known.unknown(bytes.start)], bytes.end));
        }
        let end = bytes.end.min(known.covered);
        let Known { records, .. } = known;
        let mut number = self.partition(records, |segment| segment.offset <= bytes.start)?;
        let mut found = Vec::new();
        if number > records.start {
            found.push(self.get(number - 1)?);
        } else {
            // The record was overwritten.
            let time_ms = if number < records.end { self.get(number)?.time_ms } else { 0 };
            found.push(Segment { offset: bytes.start, output: LogOutput::Stdout, time_ms });
        }
        while number < records.end {
            for record in self.read(number, records.end - number)? {
                let Some(segment) = record else { return Err(io::ErrorKind::InvalidData.into()) };
                if segment.offset >= end {
                    return Ok((found, end));
                }
                if found.len() == most {
                    return Ok((found, segment.offset));
                }
                found.push(segment);
                number += 1;
            }
        }
        Ok((found, end))
    }

    /// An offset that is not after the first byte since `time_ms`. The bytes between them are older
    /// by less than the resolution. `end` is the log's end.
    pub(super) fn since(&self, known: &Known, time_ms: u64, end: u64) -> io::Result<u64> {
        let Known { records, .. } = known;
        let next = self.partition(records, |segment| segment.time_ms <= time_ms)?;
        if next > records.start {
            let last = self.get(next - 1)?;
            if time_ms - last.time_ms < resolution_ms(next - 1) {
                return Ok(last.offset);
            }
        }
        if next < records.end { Ok(self.get(next)?.offset) } else { Ok(end) }
    }

    /// Forgets the records of bytes from `end` on. Returns the last one that is left.
    pub(super) fn truncate(&self, known: &mut Known, end: u64) -> io::Result<Option<Segment>> {
        known.records.end = self.partition(&known.records, |segment| segment.offset < end)?;
        let last = known.records.end.checked_sub(1).filter(|last| *last >= known.records.start);
        last.map(|last| self.get(last)).transpose()
    }

    /// Finds the intact records of a log of `end` bytes: the longest run of records in order.
    pub(super) fn examine(&self, header: Header, end: u64) -> io::Result<Known> {
        let Header { count, .. } = header;
        let mut run = Run::at(count.saturating_sub(MAX_RECORDS));
        let mut best = run.clone();
        let mut number = run.first;
        while number < count {
            let records = match self.read(number, count - number) {
                Ok(records) => records,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            };
            for record in records {
                number += 1;
                if !record.is_some_and(|segment| run.add(segment)) {
                    best = best.longer(run);
                    run = Run::at(number);
                    run.start_with(record);
                }
            }
        }
        Ok(best.longer(run).known(header, end))
    }
}

/// Records in order.
#[derive(Debug, Clone)]
struct Run {
    first: u64,
    length: u64,
    last: Option<Segment>,
}

impl Run {
    const fn at(first: u64) -> Self {
        Self { first, length: 0, last: None }
    }

    /// Adds the next record; `false` if it is out of order.
    fn add(&mut self, segment: Segment) -> bool {
        let follows = self
            .last
            .is_none_or(|last| segment.offset > last.offset && segment.time_ms >= last.time_ms);
        if follows {
            self.last = Some(segment);
            self.length += 1;
        }
        follows
    }

    /// The record before this run begins it, if it is intact and only out of order.
    fn start_with(&mut self, record: Option<Segment>) {
        if let Some(segment) = record {
            self.first -= 1;
            self.add(segment);
        }
    }

    fn longer(self, other: Self) -> Self {
        if other.length > self.length { other } else { self }
    }

    fn known(mut self, header: Header, end: u64) -> Known {
        let time_ms = self.last.map_or(0, |last| last.time_ms);
        let mut covered = header.end.min(end);
        if self.first + self.length < header.count {
            // The end of the last one is lost.
            covered = covered.min(self.last.map_or(0, |last| last.offset));
            self.length = self.length.saturating_sub(1);
        }
        let records = self.first..self.first + self.length;
        Known { records, covered, time_ms }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
