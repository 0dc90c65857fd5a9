//! The place on the host that a file of the guest's goes to.
//!
//! A file is written beside its place and renamed into it when it is whole: there is never half a
//! file under the asked name, what was there before stays until then, and a link in that place is
//! replaced, not followed. A device or a FIFO is no place for a file: it gets the bytes.
//!
//! The path is looked up once, when the place is opened; what is done later is done to what was
//! found then. Whoever moves folders or plants links meanwhile leads nothing astray.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};

/// A place that is being written to. Dropped before it is [kept](Self::keep), a file is gone.
#[derive(Debug)]
pub(crate) enum Destination {
    File(Beside),
    Stream(File),
}

/// A file beside its place.
#[derive(Debug)]
pub(crate) struct Beside {
    folder: OwnedFd,
    /// Its name until it is kept.
    name: OsString,
    place: OsString,
    file: File,
    kept: bool,
}

impl Destination {
    /// Begins to write to `path`; a file gets what the umask leaves of `mode`.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        if let Some(stream) = open_stream(path)? {
            return Ok(Self::Stream(stream));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, folder.unwrap_or(Path::new(".")), flags, Mode::empty())?;
        let place = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let mut name = OsString::new();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        // The names are drawn there; the file is made in the folder that was opened.
        let made = tempfile::Builder::new().prefix(".metaservice-").make_in("", |drawn| {
            name = drawn.file_name().map(OsStr::to_owned).unwrap_or_default();
            let mode = Mode::from_raw_mode(mode);
            Ok(File::from(openat(&folder, &name, flags | OFlags::CLOEXEC, mode)?))
        })?;
        let (file, drawn) = made.into_parts();
        // It is removed by its folder, not by this path.
        drop(drawn.keep());
        Ok(Self::File(Beside { folder, name, place, file, kept: false }))
    }

    /// What the bytes are written to.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::File(beside) => &beside.file,
            Self::Stream(stream) => stream,
        }
    }

    /// Whether a file is written, with attributes of its own.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Everything has been written.
    pub(crate) fn keep(self) -> io::Result<()> {
        if let Self::File(beside) = self {
            beside.keep()?;
        }
        Ok(())
    }

    /// As [`keep`](Self::keep), and it stays whatever happens to the machine.
    pub(crate) fn keep_for_good(self) -> io::Result<()> {
        if let Self::File(beside) = self {
            beside.file.sync_all()?;
            let folder = File::from(beside.folder.try_clone()?);
            beside.keep()?;
            folder.sync_all()?;
        }
        Ok(())
    }
}

impl Beside {
    fn keep(mut self) -> io::Result<()> {
        renameat(&self.folder, &self.name, &self.folder, &self.place)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.kept {
            // It may have been removed by somebody else.
            let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// What is at `path`, if it is there and no place for a file. It is looked at first and the very
/// same thing is opened then.
fn open_stream(path: &Path) -> io::Result<Option<File>> {
    let Ok(there) = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
        return Ok(None);
    };
    match FileType::from_raw_mode(fstat(&there)?.st_mode) {
        FileType::RegularFile => Ok(None),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => {
            let there = format!("/proc/self/fd/{}", there.as_raw_fd());
            OpenOptions::new().write(true).open(there).map(Some)
        }
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
    fn a_folder_that_is_swapped_for_a_link_leads_nothing_astray() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("asked")).unwrap();
        std::fs::create_dir(at("private")).unwrap();
        std::fs::write(at("private/a"), "kept").unwrap();
        for keep in [false, true] {
            let place = Destination::open(&at("asked/a"), 0o666).unwrap();
            std::fs::rename(at("asked"), at("moved")).unwrap();
            std::os::unix::fs::symlink(at("private"), at("asked")).unwrap();
            place.file().write_all(b"new").unwrap();
            if keep {
                place.keep().unwrap();
            } else {
                drop(place);
            }
            std::fs::remove_file(at("asked")).unwrap();
            std::fs::rename(at("moved"), at("asked")).unwrap();
        }
        assert_eq!(std::fs::read(at("private/a")).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(at("private")).unwrap().count(), 1);
        assert_eq!(std::fs::read(at("asked/a")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(at("asked")).unwrap().count(), 1);
        for wrong in ["asked", "asked/..", "none/a", ""] {
            assert!(Destination::open(&at(wrong), 0o666).is_err(), "{wrong}");
        }
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
