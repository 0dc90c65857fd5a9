//! The name of a cached file: a digest of everything that it was made of.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use metaservice_private::hex;
use sha2::{Digest, Sha256};

use super::place::place;

/// A digest of everything that a cached file was made of.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds bytes. Their length counts too.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a file by its name, size and times, without reading it.
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

/// Adds a file. A file of the cache counts by its name, which says what it was made of. Its times
/// change with each use.
pub(crate) fn identify(key: &mut Key, file: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    match place() {
        Some(directory) if file.starts_with(&directory) => {
            key.bytes(file.as_os_str().as_bytes());
        }
        _ => {
            key.file(file)?;
        }
    }
    Ok(())
}
