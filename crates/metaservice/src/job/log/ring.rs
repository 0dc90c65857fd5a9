//! The bytes of a log in a file: byte `n` is at `n` modulo the size of the ring.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size of one read.
pub(super) const READ: u64 = 256 * 1024;

/// The size of a ring that keeps all bytes: byte `n` is at `n`.
pub(super) const ENDLESS: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Ring {
    pub(super) file: File,
    pub(super) size: u64,
}

impl Ring {
    /// The first byte that is kept if the log has `end` bytes.
    pub(super) const fn first(&self, end: u64) -> u64 {
        end.saturating_sub(self.size)
    }

    /// Writes bytes at `offset`; if they are longer than the ring, their end.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
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
    pub(super) fn read(&self, offset: u64, most: u64) -> io::Result<Vec<u8>> {
        let place = offset % self.size;
        let length = most.min(self.size - place);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    /// The offset of the last `lines` lines of a log of `end` bytes, as far as they are kept. An
    /// unfinished last line counts.
    pub(super) fn tail(&self, end: u64, lines: u64) -> io::Result<u64> {
        let first = self.first(end);
        if lines == 0 {
            return Ok(end);
        }
        let mut left = lines;
        let mut behind = end;
        while behind > first {
            // A read never wraps around: it begins at the ring's start at the earliest.
            let wrap = (behind - 1) / self.size * self.size;
            let from = behind.saturating_sub(READ).max(first).max(wrap);
            let piece = self.read(from, behind - from)?;
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
}
