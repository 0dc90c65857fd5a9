//! The name of a cached file: a digest of everything that it was made of.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use metaservice_private::hex;
use sha2::{Digest, Sha256};

use super::folder::folder;

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
        format!("{}.{suffix}", hex(&self.0.finalize()[..16]))
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
