//! A file as a tar archive with one member, for a guest that makes the directories around it.
//!
//! The guest's agent extracts archives as hostile: it makes the missing directories of a member,
//! follows no link, and writes nothing outside its destination.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tar::{Builder, EntryType, Header};

/// The size of a block of an archive, in bytes.
const BLOCK: u64 = 512;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;

/// The most directories around a file.
const MAX_DEPTH: usize = 128;

/// Why a path is not one below a directory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidMember {
    #[error("the path of a file in a directory has 1 to {MAX_PATH} bytes")]
    Length,
    #[error("a file can be in at most {MAX_DEPTH} directories")]
    Depth,
    #[error("a file in a directory has a relative path without '.', '..', empty names and NUL")]
    Name,
}

/// What is written to a guest.
#[derive(Debug)]
pub(crate) struct Target {
    /// The path of the file in the guest, or of the directory that the member is in.
    pub(crate) path: String,
    /// Where the file is in the directory. Missing directories around it are made.
    pub(crate) member: Option<Member>,
    /// The size of the file, in bytes.
    pub(crate) size: u64,
}

/// The path of a file below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member(String);

impl Member {
    /// Checks a path.
    pub(crate) fn new(path: String) -> Result<Self, InvalidMember> {
        if path.is_empty() || path.len() > MAX_PATH {
            return Err(InvalidMember::Length);
        }
        if path.contains('\0') || path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(InvalidMember::Name);
        }
        if path.split('/').count() > MAX_DEPTH + 1 {
            return Err(InvalidMember::Depth);
        }
        Ok(Self(path))
    }

    /// What is before the bytes of a file of this size.
    pub(crate) fn head(&self, size: u64) -> io::Result<Vec<u8>> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o644);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        header.set_mtime(now.as_secs());
        // Without the bytes, it is the headers alone.
        let mut archive = Builder::new(Vec::new());
        archive.append_data(&mut header, &self.0, io::empty())?;
        Ok(std::mem::take(archive.get_mut()))
    }

    /// What is behind them: the rest of the last block, and the end of the archive.
    fn tail(size: u64) -> Vec<u8> {
        // A client names the size, which may be the largest number.
        let rest = (BLOCK - size % BLOCK) % BLOCK;
        vec![0; usize::try_from(rest + 2 * BLOCK).unwrap_or_default()]
    }
}

/// A file of this size behind the head of its member, as an archive.
pub(crate) fn archived(
    head: Vec<u8>,
    file: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    size: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let part = |bytes: Vec<u8>| stream::iter([Ok(Bytes::from(bytes))]);
    part(head).chain(file).chain(part(Member::tail(size)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_end_of_an_archive_fills_the_last_block() {
        for (size, rest) in [(0, 0), (1, 511), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(Member::tail(size).len(), rest + 1024, "{size}");
        }
    }

    #[test]
    fn a_path_stays_below_its_directory() {
        for good in ["a", "a/b c/..d", "ä/...", "-x/*"] {
            assert!(Member::new(good.to_owned()).is_ok(), "{good}");
        }
        let bad = [
            "/a",
            "../a",
            "a/../../b",
            "a/..",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "/",
            ".",
            "..",
            "a\0",
        ];
        for bad in bad {
            assert_eq!(Member::new(bad.to_owned()), Err(InvalidMember::Name), "{bad:?}");
        }
        assert_eq!(Member::new(String::new()), Err(InvalidMember::Length));
        assert_eq!(Member::new("a".repeat(MAX_PATH + 1)), Err(InvalidMember::Length));
        assert_eq!(Member::new("a/".repeat(MAX_DEPTH + 1) + "b"), Err(InvalidMember::Depth));
        assert!(Member::new("a/".repeat(MAX_DEPTH) + "b").is_ok());
    }

    #[test]
    fn the_archive_has_the_file_and_nothing_else() {
        for (path, size) in [("a/b", 0), ("a/b", 511), ("a", 512), (&*"long/".repeat(80), 700)] {
            let path = format!("{path}{size}");
            let content = vec![7; size];
            let mut bytes = Member::new(path.clone()).unwrap().head(size as u64).unwrap();
            bytes.extend(&content);
            bytes.extend(Member::tail(size as u64));
            assert_eq!(bytes.len() % 512, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(*entry.path_bytes(), *path.as_bytes());
            let mut read = Vec::new();
            entry.read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
            assert!(entries.next().is_none());
        }
    }
}
