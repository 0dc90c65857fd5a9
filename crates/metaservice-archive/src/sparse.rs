//! A file whose blocks of zeros use no disk space.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The minimum size of a hole: the block size of most file systems.
const BLOCK: usize = 4096;

/// Writes a file from its beginning to its end. It leaves holes for blocks of zeros.
///
/// ```
/// use metaservice_archive::SparseWriter;
///
/// let file = tempfile::tempfile()?;
/// let mut writer = SparseWriter::default();
/// writer.write(&file, &[0; 1 << 20])?;
/// writer.write(&file, b"end")?;
/// writer.finish(&file)?;
/// assert_eq!(file.metadata()?.len(), (1 << 20) + 3);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default, Clone, Copy)]
pub struct SparseWriter {
    /// Bytes that were written or skipped.
    length: u64,
    /// The offset after the last written byte.
    end: u64,
}

impl SparseWriter {
    /// Writes the next bytes to `file`. Each call gets the same file, which was empty at first.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (zero, count) = self.run(rest);
            let (run, behind) = rest.split_at(count);
            if !zero {
                file.write_all_at(run, self.length)?;
                self.end = self.length + count as u64;
            }
            self.length += count as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Sets the length of the file: it may end with a hole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, file: &File) -> io::Result<()> {
        if self.end < self.length { file.set_len(self.length) } else { Ok(()) }
    }

    /// The number of bytes that were written or skipped.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The next run of blocks: whether they are complete and zeros, and the length of the run.
    fn run(&self, bytes: &[u8]) -> (bool, usize) {
        let within = usize::try_from(self.length % BLOCK as u64).unwrap_or(0);
        let mut ends = 0;
        let mut zero = false;
        while ends < bytes.len() {
            let first = if ends == 0 { BLOCK - within } else { BLOCK };
            let next = (ends + first).min(bytes.len());
            let whole = next - ends == BLOCK;
            let is_zero = whole && bytes[ends..next].iter().all(|byte| *byte == 0);
            if ends > 0 && is_zero != zero {
                break;
            }
            (zero, ends) = (is_zero, next);
        }
        (zero, ends)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_read_as_they_were_written(
            runs in proptest::collection::vec((any::<bool>(), 1usize..20_000), 0..8),
            piece in 1usize..10_000,
        ) {
            let mut content = Vec::new();
            for (zero, length) in runs {
                content.resize(content.len() + length, if zero { 0 } else { 7 });
            }
            let mut file = tempfile::tempfile().unwrap();
            let mut writer = SparseWriter::default();
            for piece in content.chunks(piece) {
                writer.write(&file, piece).unwrap();
            }
            writer.finish(&file).unwrap();
            let mut read = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut read).unwrap();
            prop_assert_eq!(writer.length(), content.len() as u64);
            prop_assert!(read == content);
        }
    }

    #[test]
    fn holes_use_no_disk_space() {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
        let mut writer = SparseWriter::default();
        for _ in 0..64 {
            writer.write(&file, &[0; 1 << 20]).unwrap();
        }
        writer.write(&file, b"middle").unwrap();
        for _ in 0..64 {
            writer.write(&file, &[0; 1 << 20]).unwrap();
        }
        writer.finish(&file).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (128 << 20) + 6);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    }
}
