//! The serial console of a machine.
//!
//! Owns the last part of its output, in a ring of limited size. Lines are sanitized before they are
//! shown, because the guest is hostile. All output is read at once: a guest that floods its console
//! costs time, but no memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use metaservice_private::lock;

use tokio::sync::watch;

use super::sanitize::clean_lines;

/// How many bytes of the console are kept.
const KEPT: usize = 64 * 1024;

/// The console of a machine. Clones share it. It stays readable after the end of the machine.
#[derive(Debug, Clone)]
pub struct Console(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    /// Sent on each arrival. `true` when no more can come.
    ended: watch::Sender<bool>,
    /// Whether the log has reached its limit.
    log_ended: watch::Sender<bool>,
}

/// The file to which a console is written, and its limit.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    file: File,
    limit: u64,
    left: u64,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Whether bytes were dropped, so that the first line is incomplete.
    dropped: bool,
}

impl Console {
    /// Reads a stream to its end on a thread of its own, into the ring and into `log`.
    pub(crate) fn read(stream: UnixStream, log: Option<ConsoleLog>) -> io::Result<Self> {
        let console = Self(Arc::default());
        let shared = Arc::clone(&console.0);
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || shared.fill(stream, log))?;
        Ok(console)
    }

    /// The last lines, at most `lines`, sanitized for a terminal: without control characters,
    /// escape sequences and text that changes its direction. A line has at most 1024 characters.
    /// Empty lines are left out.
    #[must_use]
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let mut bytes = Vec::new();
        let dropped = {
            let ring = self.0.ring();
            let (front, back) = ring.bytes.as_slices();
            bytes.extend_from_slice(front);
            bytes.extend_from_slice(back);
            ring.dropped
        };
        let mut all = clean_lines(&bytes);
        if dropped && !all.is_empty() {
            all.remove(0);
        }
        all.split_off(all.len().saturating_sub(lines))
    }

    /// Waits until a line that is still kept contains `text`, and returns `true`. Returns `false`
    /// if the console ends before. Cancel-safe.
    pub async fn wait_for(&self, text: &str) -> bool {
        let mut changes = self.0.ended.subscribe();
        loop {
            let ended = *changes.borrow_and_update();
            if self.tail(usize::MAX).iter().any(|line| line.contains(text)) {
                return true;
            }
            if ended || changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits until the console's file has reached its limit. It may never do so.
    pub async fn log_ended(&self) {
        // The sender is in `self`, so it exists.
        let _ = self.0.log_ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Waits until no more output can come.
    pub(crate) async fn ended(&self) {
        // The sender is in `self`, so it exists.
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    fn fill(&self, mut stream: UnixStream, mut log: Option<ConsoleLog>) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.ring().push(&buffer[..count]);
                    self.ended.send_replace(false);
                    self.keep(&mut log, &buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.ended.send_replace(true);
    }

    /// If the log cannot be written, it is closed, and the machine continues.
    fn keep(&self, log: &mut Option<ConsoleLog>, bytes: &[u8]) {
        match log.as_mut().map(|log| log.write(bytes)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => {
                *log = None;
                self.log_ended.send_replace(true);
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the console log cannot be written");
                *log = None;
            }
        }
    }
}

impl ConsoleLog {
    pub(crate) const fn new(file: File, limit: u64) -> Self {
        Self { file, limit, left: limit }
    }

    /// Writes what fits. Returns `false` if that was not everything.
    fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_all(&bytes[..room])?;
        self.left -= room as u64;
        if room == bytes.len() {
            return Ok(true);
        }
        let end = format!("\nmetaservice: the console's file ends here, at {} bytes\n", self.limit);
        self.file.write_all(end.as_bytes())?;
        Ok(false)
    }
}

impl Ring {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        if let Some(excess) = self.bytes.len().checked_sub(KEPT).filter(|excess| *excess > 0) {
            self.bytes.drain(..excess);
            self.dropped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_end() {
        let mut ring = Ring::default();
        for number in 0..20_000 {
            ring.push(format!("line {number}\n").as_bytes());
        }
        assert_eq!(ring.bytes.len(), KEPT);
        let shared = Shared { ring: Mutex::new(ring), ..Shared::default() };
        let console = Console(Arc::new(shared));
        assert_eq!(console.tail(2), ["line 19998", "line 19999"]);
        let all = console.tail(usize::MAX);
        let first: u32 = all[0].strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(
            usize::try_from(first).unwrap(),
            20_000 - all.len(),
            "no line without its beginning"
        );
    }

    #[tokio::test]
    async fn waiting_ends_with_the_text_or_with_the_console() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let log_to = ConsoleLog::new(log.reopen().unwrap(), u64::MAX);
        let console = Console::read(host, Some(log_to)).unwrap();
        guest.write_all(b"hel").unwrap();
        guest.write_all(b"lo\n").unwrap();
        assert!(console.wait_for("hello").await);
        drop(guest);
        assert!(!console.wait_for("never").await);
        console.ended().await;
        assert_eq!(std::fs::read(log.path()).unwrap(), b"hello\n");
    }

    #[tokio::test]
    async fn a_log_at_its_limit_is_whole_and_past_it_says_so_once() {
        let end = "\nmetaservice: the console's file ends here, at 7 bytes\n";
        for (sent, expected) in
            [("1234567", String::from("1234567")), ("12345678", format!("1234567{end}"))]
        {
            let (mut guest, host) = UnixStream::pair().unwrap();
            let log = tempfile::NamedTempFile::new().unwrap();
            let log_to = ConsoleLog::new(log.reopen().unwrap(), 7);
            let console = Console::read(host, Some(log_to)).unwrap();
            guest.write_all(b"12").unwrap();
            guest.write_all(&sent.as_bytes()[2..]).unwrap();
            if sent.len() > 7 {
                console.log_ended().await;
                guest.write_all(b"more\n").unwrap();
            }
            drop(guest);
            console.ended().await;
            assert_eq!(*console.0.log_ended.borrow(), sent.len() > 7);
            assert_eq!(std::fs::read_to_string(log.path()).unwrap(), expected);
        }
    }
}
