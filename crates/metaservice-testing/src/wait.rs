//! Waits for a condition by events.
//!
//! No test sleeps to synchronise. A test waits for the event that makes the condition true: a line
//! of output, the exit of a process (`processes`), or a new entry of a directory ([`Watch`]).

use std::time::Duration;

/// The longest time that a test waits for one event.
///
/// It is generous, because tests run under software emulation on busy hosts. A test that reaches
/// it has failed. No test asserts that something is faster than this.
pub const TIMEOUT: Duration = Duration::from_secs(240);

/// Watches a directory for new entries.
///
/// ```no_run
/// use metaservice_testing::wait::Watch;
///
/// # fn start_copy() {}
/// let watch = Watch::new("work");
/// start_copy();
/// watch.wait_for(".making-");
/// ```
#[cfg(any(feature = "cli", feature = "host", feature = "pair"))]
#[derive(Debug)]
pub struct Watch(rustix::fd::OwnedFd);

#[cfg(any(feature = "cli", feature = "host", feature = "pair"))]
impl Watch {
    /// Watches `directory`, which exists, from now on.
    pub fn new(directory: impl AsRef<std::path::Path>) -> Self {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

        let watch = inotify::init(CreateFlags::CLOEXEC).unwrap();
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, directory.as_ref(), flags).unwrap();
        Self(watch)
    }

    /// Waits for a new entry with a name that begins with `prefix`.
    pub fn wait_for(&self, prefix: &str) {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::fs::inotify::Reader;

        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            if reader.is_buffer_empty() {
                let timeout = TIMEOUT.try_into().unwrap();
                let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
                assert_eq!(ready, Ok(1), "no new entry {prefix}*");
            }
            let event = reader.next().unwrap();
            let begins = |name: &std::ffi::CStr| name.to_bytes().starts_with(prefix.as_bytes());
            if event.file_name().is_some_and(begins) {
                return;
            }
        }
    }
}

/// Waits until `path` exists. Its directory exists already.
#[cfg(any(feature = "cli", feature = "host", feature = "pair"))]
pub fn for_file(path: &std::path::Path) {
    let watch = Watch::new(path.parent().unwrap());
    let name = path.file_name().unwrap().to_str().unwrap();
    while !path.exists() {
        watch.wait_for(name);
    }
}

/// Waits until `condition` is true, for a condition without an event: what `/proc` says of a
/// process. Use it for nothing else.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < TIMEOUT, "never: {what}");
        // A time slice for the process that is observed.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
