//! Jobs that appear in the directory of jobs, or disappear from it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What changes a directory.
const CHANGES: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE);

/// Tells when a name appears in a directory, or disappears.
#[derive(Debug)]
pub(crate) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Must be called within a tokio runtime.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, directory, CHANGES)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, and this crate has no unsafe code")]
        AsyncFd::with_interest(events, Interest::READABLE).map(Self)
    }

    /// Waits until a name has appeared or disappeared since the last call. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut changed = false;
            loop {
                match inotify::Reader::new(guard.get_inner(), &mut buffer).next() {
                    Ok(_) => changed = true,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            guard.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}
