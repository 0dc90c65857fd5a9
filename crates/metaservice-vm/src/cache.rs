//! The folder in which things that took time to make are kept, by what they were made of.
//!
//! Owns atomic writing and pruning. A file here is whole or not there; two processes that
//! make the same file at once both end with the same one.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// How many files a folder of the cache keeps, the most recently used ones.
const KEPT_FILES: usize = 8;

/// A file that was used this recently is kept in any case: a machine may be about to
/// read it.
const KEPT_TIME: Duration = Duration::from_secs(10 * 60);

/// Where the cache is: `$XDG_CACHE_HOME/metaservice`, or `~/.cache/metaservice`.
pub(crate) fn folder() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("metaservice"))
}

/// What a cached file was made of.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds bytes that go into the file.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a file by name, size and time of change: reading it is what the cache saves.
    pub(crate) fn file(&mut self, path: &Path) -> io::Result<&mut Self> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        self.bytes(path.as_os_str().as_bytes());
        for number in [
            metadata.size(),
            metadata.ino(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
        ] {
            self.bytes(&number.to_le_bytes());
        }
        Ok(self)
    }

    pub(crate) fn name(self, suffix: &str) -> String {
        let digest = self.0.finalize();
        let hexadecimal: String =
            digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{hexadecimal}.{suffix}")
    }
}

/// Adds a file to a key. One of the cache's own is known by its name, which says what it was made
/// of; its time is that of its last use.
pub(crate) fn identify(key: &mut Key, file: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    match folder() {
        Some(folder) if file.starts_with(&folder) => {
            key.bytes(file.as_os_str().as_bytes());
        }
        _ => {
            key.file(file)?;
        }
    }
    Ok(())
}

/// Finds the file for `key` in `folder`, or has it written.
pub(crate) fn get_or_make<E: From<io::Error>>(
    folder: &Path,
    key: Key,
    suffix: &str,
    make: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<PathBuf, E> {
    let path = folder.join(key.name(suffix));
    if let Ok(file) = fs::File::options().append(true).open(&path) {
        // Used again: the last to be pruned.
        let _ = file.set_modified(SystemTime::now());
        return Ok(path);
    }
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::Builder::new().prefix(".making-").tempfile_in(folder)?;
    let mut output = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
    make(&mut output)?;
    output.flush()?;
    drop(output);
    temporary.persist(&path).map_err(|error| error.error)?;
    prune(folder);
    Ok(path)
}

/// Removes what has not been used for longest. What cannot be removed stays: the cache is
/// no reason to fail.
fn prune(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, entry.path()))
        })
        .collect();
    files.sort_by(|one, other| other.cmp(one));
    let now = SystemTime::now();
    for (used, path) in files.into_iter().skip(KEPT_FILES) {
        if now.duration_since(used).is_ok_and(|age| age > KEPT_TIME) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        let mut key = Key::default();
        key.bytes(text.as_bytes());
        key
    }

    #[test]
    fn made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let make = |output: &mut dyn Write| output.write_all(b"content");
        let first = get_or_make(folder.path(), key("a"), "x", make).unwrap();
        let second =
            get_or_make::<io::Error>(folder.path(), key("a"), "x", |_| unreachable!()).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read(first).unwrap(), b"content");
        assert_ne!(second, get_or_make(folder.path(), key("b"), "x", make).unwrap());
    }

    #[test]
    fn a_failed_making_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let failed = get_or_make::<io::Error>(folder.path(), key("a"), "x", |output| {
            output.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_the_most_recently_used_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        for number in 0..20u32 {
            let file = fs::File::create(folder.path().join(format!("{number:02}.x"))).unwrap();
            file.set_modified(old + Duration::from_secs(number.into())).unwrap();
        }
        let made =
            get_or_make(folder.path(), key("new"), "x", |output| output.write_all(b"new")).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), KEPT_FILES);
        assert!(made.exists());
        assert!(names.contains(&"19.x".into()) && !names.contains(&"12.x".into()), "{names:?}");
    }

    #[test]
    fn where_one_part_ends_and_the_next_begins_counts() {
        let (mut one, mut other) = (Key::default(), Key::default());
        one.bytes(b"ab").bytes(b"c");
        other.bytes(b"a").bytes(b"bc");
        assert_ne!(one.name("x"), other.name("x"));
    }
}
