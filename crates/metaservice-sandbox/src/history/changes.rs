//! Jobs that appear in the directory of jobs.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a name appears in a directory.
#[derive(Debug)]
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Must be called within a tokio runtime.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, directory, WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, and this crate has no unsafe code")]
        AsyncFd::with_interest(events, Interest::READABLE).map(Self)
    }

    /// Waits until a name has appeared since the last call. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut appeared = false;
            loop {
                match inotify::Reader::new(guard.get_inner(), &mut buffer).next() {
                    Ok(_) => appeared = true,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            guard.clear_ready();
            if appeared {
                return Ok(());
            }
        }
    }
}
