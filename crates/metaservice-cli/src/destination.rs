//! The place on the host that a file of the guest's goes to.
//!
//! A file is written beside its place and renamed into it when it is whole: there is never half a
//! file under the asked name, what was there before stays until then, and a link in that place is
//! replaced, not followed. A device or a FIFO is no place for a file: it gets the bytes.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A place that is being written to. Dropped before it is [kept](Self::keep), a file is gone.
#[derive(Debug)]
pub(crate) struct Destination {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    File(NamedTempFile),
    Stream(File),
}

impl Destination {
    /// Begins to write to `path`; a file gets what the umask leaves of `mode`.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let is_stream = std::fs::metadata(path).is_ok_and(|there| !there.is_file());
        let kind = if is_stream {
            Kind::Stream(OpenOptions::new().write(true).open(path)?)
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut builder = tempfile::Builder::new();
            builder.prefix(".metaservice-").permissions(Permissions::from_mode(mode));
            Kind::File(builder.tempfile_in(folder.unwrap_or(Path::new(".")))?)
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    /// What the bytes are written to.
    pub(crate) fn file(&self) -> &File {
        match &self.kind {
            Kind::File(file) => file.as_file(),
            Kind::Stream(stream) => stream,
        }
    }

    /// Whether a file is written, with attributes of its own.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// Everything has been written.
    pub(crate) fn keep(self) -> io::Result<()> {
        if let Kind::File(file) = self.kind {
            file.persist(&self.path)?;
        }
        Ok(())
    }

    /// As [`keep`](Self::keep), and it stays whatever happens to the machine.
    pub(crate) fn keep_for_good(self) -> io::Result<()> {
        if self.is_file() {
            self.file().sync_all()?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = File::open(folder.unwrap_or(Path::new(".")))?;
            self.keep()?;
            folder.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_file_comes_whole_or_not_at_all_and_replaces_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        for keep in [false, true] {
            let place = Destination::open(&path, 0o666).unwrap();
            place.file().write_all(b"new").unwrap();
            assert!(place.is_file() && std::fs::read(&path).unwrap() == b"other");
            if keep {
                place.keep_for_good().unwrap();
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_file_gets_the_bytes_and_stays_what_it_is() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let path = fifo.clone();
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            File::open(path).unwrap().read_to_string(&mut all).map(|_| all)
        });
        let place = Destination::open(&fifo, 0o666).unwrap();
        place.file().write_all(b"bytes").unwrap();
        place.keep_for_good().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), "bytes");
        assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
        let null = Destination::open(Path::new("/dev/null"), 0o666).unwrap();
        null.file().write_all(b"x").unwrap();
        null.keep().unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
