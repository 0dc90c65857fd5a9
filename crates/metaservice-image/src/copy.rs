//! Copies of large files, with holes in place of zeros.
//!
//! Owns the copy and its digest. Blocks. After each part, the observer decides whether to continue.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use metaservice_private::hex;
use sha2::{Digest, Sha256};

/// The size of a part: 1 MiB.
const PIECE: usize = 1 << 20;

/// The size of a hole: 64 KiB.
const HOLE: usize = 64 << 10;

/// Gets the number of bytes of each finished part of an operation, and says whether to continue.
pub type Observer<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Copies `from` to the empty file `to`. Shares the blocks if the file system can do that.
///
/// # Errors
/// Those of reading and writing, and [`io::ErrorKind::Interrupted`] if the observer stops the copy.
pub(crate) fn copy(from: &mut File, to: &File, observe: Observer<'_>) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, &*from).is_ok() {
        return Ok(());
    }
    walk(from, observe, |piece, at| write_sparse(to, piece, at))
        .and_then(|length| to.set_len(length))
}

/// As [`copy`], and returns the SHA-256 digest in hexadecimal digits.
///
/// # Errors
/// As [`copy`].
pub(crate) fn copy_digested(
    from: &mut File,
    to: &File,
    observe: Observer<'_>,
) -> io::Result<String> {
    let mut digest = Sha256::new();
    let length = walk(from, observe, |piece, at| {
        digest.update(piece);
        write_sparse(to, piece, at)
    })?;
    to.set_len(length)?;
    Ok(hex(&digest.finalize()))
}

/// The digest of a file.
///
/// # Errors
/// As [`copy`].
pub(crate) fn digest(file: &mut File, observe: Observer<'_>) -> io::Result<String> {
    let mut digest = Sha256::new();
    walk(file, observe, |piece, _| {
        digest.update(piece);
        Ok(())
    })?;
    Ok(hex(&digest.finalize()))
}

/// Reads a file from its beginning, and returns its length.
fn walk(
    file: &mut File,
    observe: Observer<'_>,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => return Ok(at),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        each(&piece[..count], at)?;
        at += count as u64;
        if observe(count as u64).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

/// Writes all parts that are not zero into a new file.
fn write_sparse(to: &File, piece: &[u8], at: u64) -> io::Result<()> {
    for (number, part) in piece.chunks(HOLE).enumerate() {
        if part.iter().any(|byte| *byte != 0) {
            to.write_all_at(part, at + (number * HOLE) as u64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", 5_000_000).unwrap();
        file.set_len(9_000_001).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_copy_is_the_same_and_has_holes() {
        let (mut from, to) = (sparse(), tempfile::tempfile().unwrap());
        let mut seen = 0;
        let digest = copy_digested(&mut from, &to, &mut |bytes| {
            seen += bytes;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((content(&to), seen), (content(&from), 9_000_001));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(digest, hex(&Sha256::digest(content(&from))));
        assert_eq!(super::digest(&mut from, &mut |_| ControlFlow::Continue(())).unwrap(), digest);
        let plain = tempfile::tempfile().unwrap();
        copy(&mut from, &plain, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(content(&plain), content(&from));
    }

    #[test]
    fn it_stops_when_told() {
        let mut pieces = 0;
        let stopped = digest(&mut sparse(), &mut |_| {
            pieces += 1;
            if pieces < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert_eq!((stopped.unwrap_err().kind(), pieces), (io::ErrorKind::Interrupted, 3));
    }
}
