//! The destination of a file on the host: one rule for artifacts, copies out of a guest, the log,
//! the console and captured frames.
//!
//! | at the path | artifact, copy | log, console, pcap |
//! | --- | --- | --- |
//! | nothing | a file appears when it is complete | a file is made at once |
//! | a plain file | it is replaced when the new one is complete | it is emptied and written |
//! | a link to a plain file, or to nothing | the link is replaced, its target stays | the same |
//! | a device, a FIFO, a socket, or a link to one | the bytes go there | the same |
//! | a link to an open file (`/dev/stdout`, `/dev/fd/N`) | the bytes go there | the same |
//! | a directory, or a link to one | an error | the same |
//!
//! If the user did not write the last name of the path ([`Named::ByGuest`]), a link is always
//! replaced: an earlier copy may have created it for the guest. If the guest can write the
//! directory itself ([`Named::InVolume`]), everything but a directory is replaced: a link, a FIFO
//! or a socket may be there to lead the bytes to a program of the host.
//!
//! The log of the network goes to a file only, because it is also read: [`open_record`].
//!
//! The path is looked up once, when the destination is opened. Later operations use what was found
//! then, so that directories and links that change meanwhile redirect nothing.
//!
//! A process that is killed leaves nothing: a file has no name until it is complete. On a file
//! system that cannot do that, it has a name that the next copy to the directory removes.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use metaservice_private::{PartialFile, sweep};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::named::{Named, open_parent};

/// A destination that is being written. If it is dropped before [`keep`](Self::keep), the file is
/// removed.
#[derive(Debug)]
pub enum Destination {
    /// A file that appears when it is complete.
    File(Beside),
    /// A device, a FIFO, a socket or an open file.
    Stream(File),
}

/// A file without its name, in the directory of its name.
#[derive(Debug)]
pub struct Beside {
    directory: OwnedFd,
    place: OsString,
    partial: PartialFile,
}

impl Destination {
    /// Opens `path` to be written. The mode of a file is `mode` without the umask. Blocks at a FIFO
    /// until it has a reader.
    ///
    /// # Errors
    /// When the path is a directory, or cannot be written.
    pub fn open(path: &Path, named: Named, mode: u32) -> io::Result<Self> {
        let place = Place::look_up(path, named)?;
        match place.found {
            Found::Stream(stream) => Ok(Self::Stream(stream.open()?)),
            Found::File | Found::Other => {
                Ok(Self::File(Beside::make(place.directory, place.name, mode)?))
            }
        }
    }

    /// As [`open`](Self::open), on a thread that may block. If the future is dropped, the thread
    /// stays until a reader comes or the process ends.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_async(path: PathBuf, named: Named, mode: u32) -> io::Result<Self> {
        tracing::debug!(path = %path.display(), "opening a file to write to");
        tokio::task::spawn_blocking(move || Self::open(&path, named, mode)).await?
    }

    /// The file to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        match self {
            Self::File(beside) => beside.partial.file(),
            Self::Stream(stream) => stream,
        }
    }

    /// Whether a file is written, which has attributes.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Gives the file its name: it is complete.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn keep(self) -> io::Result<()> {
        if let Self::File(beside) = self {
            beside.partial.keep(&beside.place)?;
        }
        Ok(())
    }

    /// As [`keep`](Self::keep), and makes file and name durable.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn keep_for_good(self) -> io::Result<()> {
        if let Self::File(beside) = self {
            beside.partial.file().sync_all()?;
            beside.partial.keep(&beside.place)?;
            File::from(beside.directory).sync_all()?;
        }
        Ok(())
    }
}

/// The mode of a file that is written as it comes. The umask is applied to it.
const MODE: u32 = 0o666;

/// Opens a path for the log, the console or captured frames, which are written as they come. Blocks
/// at a FIFO until it has a reader.
///
/// # Errors
/// When the path is a directory, or cannot be written.
pub fn open_output(path: &Path) -> io::Result<File> {
    let Place { directory, name, found } = Place::look_up(path, Named::ByUser)?;
    match found {
        Found::Stream(stream) => stream.open(),
        Found::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(openat(directory, name, flags, Mode::from_raw_mode(MODE))?.into())
        }
        Found::Other => {
            let beside = Beside::make(directory, name, MODE)?;
            let file = beside.partial.file().try_clone()?;
            beside.partial.keep(&beside.place)?;
            Ok(file)
        }
    }
}

/// Opens a path for a file that is written and read at the same time, by the rule of
/// [`open_output`]. `None`: what is there takes bytes, and cannot be read again.
///
/// # Errors
/// As [`open_output`].
pub fn open_record(path: &Path) -> io::Result<Option<File>> {
    let Place { directory, name, found } = Place::look_up(path, Named::ByUser)?;
    match found {
        Found::Stream(_) => return Ok(None),
        Found::File => {}
        Found::Other => {
            let beside = Beside::make(directory.try_clone()?, name.clone(), MODE)?;
            beside.partial.keep(&beside.place)?;
        }
    }
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(Some(openat(directory, name, flags, Mode::from_raw_mode(MODE))?.into()))
}

/// Whether bytes for `path` go to a device, a FIFO, a socket or an open file. Several outputs may.
#[must_use]
pub fn is_stream(path: &Path, named: Named) -> bool {
    Place::look_up(path, named).is_ok_and(|place| matches!(place.found, Found::Stream(_)))
}

/// A name in an open directory, and what has the name.
struct Place {
    directory: OwnedFd,
    name: OsString,
    found: Found,
}

enum Found {
    /// A plain file, or nothing.
    File,
    /// Something that is to be replaced, such as a link.
    Other,
    /// Something that takes bytes.
    Stream(Stream),
}

/// Something that takes bytes and is not open yet.
struct Stream {
    there: OwnedFd,
    kind: FileType,
    /// Whether it was found by a link to an open file.
    is_open: bool,
}

impl Place {
    fn look_up(path: &Path, named: Named) -> io::Result<Self> {
        let directory = open_parent(path, named)?;
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let found = find(directory.as_fd(), &name, named)?;
        Ok(Self { directory, name, found })
    }
}

fn find(directory: BorrowedFd<'_>, name: &OsStr, named: Named) -> io::Result<Found> {
    let look = |follow: OFlags| {
        let there =
            openat(directory, name, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty())?;
        let kind = FileType::from_raw_mode(fstat(&there)?.st_mode);
        Ok::<_, Errno>((there, kind))
    };
    let (there, kind) = match look(OFlags::NOFOLLOW) {
        Ok((_, FileType::Symlink)) if named != Named::ByUser => return Ok(Found::Other),
        Ok((_, FileType::Symlink)) => match look(OFlags::empty()) {
            Ok((there, kind)) => {
                let is_open = leads_to_open_file(directory, name);
                return match kind {
                    FileType::RegularFile if !is_open => Ok(Found::Other),
                    FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
                    _ => Ok(Found::Stream(Stream { there, kind, is_open })),
                };
            }
            // It leads to nothing, or round in a circle.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Other),
            Err(errno) => return Err(errno.into()),
        },
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(Found::File),
        Err(errno) => return Err(errno.into()),
    };
    match kind {
        FileType::RegularFile => Ok(Found::File),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ if named == Named::InVolume => Ok(Found::Other),
        _ => Ok(Found::Stream(Stream { there, kind, is_open: false })),
    }
}

/// Whether the link leads through a link that the kernel makes of a descriptor.
fn leads_to_open_file(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let plain = openat2(directory, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    plain.is_err_and(|errno| errno == Errno::LOOP)
}

impl Stream {
    fn open(self) -> io::Result<File> {
        let there = fstat(&self.there)?;
        if self.is_open {
            // A duplicate shares the position in the file, and a socket cannot be opened again.
            for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
                let same = fstat(stream)
                    .is_ok_and(|own| (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino));
                if same {
                    return Ok(stream.try_clone_to_owned()?.into());
                }
            }
        }
        let path = format!("/proc/self/fd/{}", self.there.as_raw_fd());
        if self.kind == FileType::Socket {
            return Ok(File::from(OwnedFd::from(UnixStream::connect(path)?)));
        }
        let flags = OFlags::NOCTTY.bits().cast_signed();
        // Only an open file is a plain one here: what it holds stays.
        let append = self.kind == FileType::RegularFile;
        OpenOptions::new().write(true).append(append).custom_flags(flags).open(path)
    }
}

impl Beside {
    fn make(directory: OwnedFd, place: OsString, mode: u32) -> io::Result<Self> {
        sweep(directory.as_fd());
        let partial = PartialFile::new(directory.try_clone()?, mode)?;
        Ok(Self { directory, place, partial })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_file_comes_whole_or_not_at_all_and_replaces_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        for keep in [false, true] {
            let place = Destination::open(&path, Named::ByUser, 0o666).unwrap();
            place.file().write_all(b"new").unwrap();
            assert!(place.is_file() && std::fs::read(&path).unwrap() == b"other");
            if keep {
                place.keep_for_good().unwrap();
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_is_swapped_for_a_link_leads_nothing_astray() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("asked")).unwrap();
        std::fs::create_dir(at("private")).unwrap();
        std::fs::write(at("private/a"), "kept").unwrap();
        for keep in [false, true] {
            let place = Destination::open(&at("asked/a"), Named::ByUser, 0o666).unwrap();
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
            assert!(Destination::open(&at(wrong), Named::ByUser, 0o666).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_file_gets_the_bytes_and_stays_what_it_is() {
        use std::os::unix::fs::FileTypeExt;
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let path = fifo.clone();
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            File::open(path).unwrap().read_to_string(&mut all).map(|_| all)
        });
        let place = Destination::open(&fifo, Named::ByUser, 0o666).unwrap();
        place.file().write_all(b"bytes").unwrap();
        place.keep_for_good().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), "bytes");
        assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
        let null = Destination::open(Path::new("/dev/null"), Named::ByUser, 0o666).unwrap();
        null.file().write_all(b"x").unwrap();
        null.keep().unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    /// The kinds of links, each with what it leads to.
    fn plant_links(at: &dyn Fn(&str) -> PathBuf) {
        use std::os::unix::fs::symlink;
        std::fs::write(at("plain"), "plain").unwrap();
        symlink("plain", at("to plain")).unwrap();
        symlink("none", at("to nothing")).unwrap();
        symlink("circle", at("circle")).unwrap();
        symlink("/dev/null", at("to device")).unwrap();
        symlink("to device", at("to link")).unwrap();
    }

    #[test]
    fn a_link_to_a_device_stays_and_one_to_a_file_is_replaced_whatever_writes() {
        let outputs: [fn(&Path); 2] = [
            |path| {
                let place = Destination::open(path, Named::ByUser, 0o666).unwrap();
                place.file().write_all(b"new").unwrap();
                place.keep().unwrap();
            },
            |path| open_output(path).unwrap().write_all(b"new").unwrap(),
        ];
        for write in outputs {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            plant_links(&at);
            for stays in ["to device", "to link"] {
                write(&at(stays));
                assert!(at(stays).is_symlink(), "{stays}");
            }
            for replaced in ["to plain", "to nothing", "circle"] {
                write(&at(replaced));
                assert!(!at(replaced).is_symlink(), "{replaced}");
                assert_eq!(std::fs::read(at(replaced)).unwrap(), b"new");
            }
            assert_eq!(std::fs::read(at("plain")).unwrap(), b"plain");
            write(&at("plain"));
            write(&at("other"));
            assert_eq!(std::fs::read(at("plain")).unwrap(), b"new");
            let hidden = |entry: io::Result<std::fs::DirEntry>| {
                entry.unwrap().file_name().as_encoded_bytes().starts_with(b".")
            };
            assert!(!std::fs::read_dir(directory.path()).unwrap().any(hidden));
        }
    }

    #[test]
    fn a_link_that_a_guest_may_have_made_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        plant_links(&at);
        for replaced in ["to device", "to link", "to plain"] {
            let place = Destination::open(&at(replaced), Named::ByGuest, 0o666).unwrap();
            place.file().write_all(b"new").unwrap();
            place.keep().unwrap();
            assert_eq!(std::fs::read(at(replaced)).unwrap(), b"new");
            assert!(!at(replaced).is_symlink(), "{replaced}");
        }
    }

    #[test]
    fn where_the_guest_writes_only_directories_stay() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().canonicalize().unwrap();
        let at = |name: &str| here.join(name);
        plant_links(&at);
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for replaced in ["to device", "to plain", "socket", "plain", "new"] {
            let place = Destination::open(&at(replaced), Named::InVolume, 0o666).unwrap();
            place.file().write_all(b"new").unwrap();
            place.keep().unwrap();
            assert!(at(replaced).symlink_metadata().unwrap().is_file(), "{replaced}");
        }
        std::fs::create_dir(at("private")).unwrap();
        std::os::unix::fs::symlink(at("private"), at("out")).unwrap();
        for wrong in ["out/a", "private"] {
            Destination::open(&at(wrong), Named::InVolume, 0o666).unwrap_err();
        }
        assert_eq!(std::fs::read_dir(at("private")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_to_an_open_file_adds_to_it_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "before ").unwrap();
        let open = OpenOptions::new().write(true).open(at("file")).unwrap();
        let link = format!("/proc/self/fd/{}", open.as_raw_fd());
        std::os::unix::fs::symlink(link, at("link")).unwrap();
        assert!(is_stream(&at("link"), Named::ByUser) && !is_stream(&at("file"), Named::ByUser));
        let place = Destination::open(&at("link"), Named::ByUser, 0o666).unwrap();
        assert!(!place.is_file());
        place.file().write_all(b"artifact ").unwrap();
        place.keep().unwrap();
        open_output(&at("link")).unwrap().write_all(b"log").unwrap();
        assert!(at("link").is_symlink());
        assert_eq!(std::fs::read(at("file")).unwrap(), b"before artifact log");
        std::fs::remove_file(at("file")).unwrap();
    }

    #[test]
    fn a_socket_gets_the_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("socket", &link).unwrap();
        open_output(&link).unwrap().write_all(b"bytes").unwrap();
        let mut all = String::new();
        listener.accept().unwrap().0.read_to_string(&mut all).unwrap();
        assert_eq!(all, "bytes");
    }
}
