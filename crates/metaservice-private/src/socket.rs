//! Paths of unix sockets. The system takes at most 107 bytes, and a home directory may be longer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// The longest path in the address of a socket: `sun_path` has 108 bytes, one of them for the end.
const LONGEST: usize = 107;

/// The path of a unix socket, to listen or to connect, which is short enough for the system.
///
/// A longer path leads through the descriptor of its directory, by `/proc`. The value has this
/// descriptor: keep it until the socket listens or is connected.
///
/// ```
/// use std::os::unix::net::UnixListener;
/// use metaservice_private::SocketPath;
///
/// let directory = tempfile::tempdir()?;
/// let long = directory.path().join("x".repeat(120));
/// std::fs::create_dir(&long)?;
/// let path = long.join("socket");
/// assert!(UnixListener::bind(&path).is_err());
/// UnixListener::bind(SocketPath::of(&path)?.as_path())?;
/// assert!(path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl SocketPath {
    /// The socket at `path`.
    ///
    /// # Errors
    /// The path is long, and its directory cannot be opened.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self { path: path.to_owned(), _directory: None });
        };
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty())?;
        Ok(Self { path: below(&directory).join(name), _directory: Some(directory) })
    }

    /// The socket `name` in a directory.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn within(directory: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let directory = directory.try_clone_to_owned()?;
        Ok(Self { path: below(&directory).join(name), _directory: Some(directory) })
    }

    /// The path for the system.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

fn below(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}
