//! What a machine says on its serial console.
//!
//! Owns the last part of it, in a bounded ring, and makes it fit to be shown: the guest is
//! hostile, and a terminal obeys what it is sent. It takes everything that comes, always: a
//! guest that floods its console costs the time of reading, and no memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use metaservice_private::lock;

use tokio::sync::watch;

/// How much of the console is kept, in bytes.
const KEPT: usize = 64 * 1024;

/// The longest line that is shown, in characters; the rest of it is left out.
const MAX_LINE: usize = 1024;

/// The console of a machine. Clones are of the same console, which stays readable when the
/// machine is gone.
#[derive(Debug, Clone)]
pub struct Console(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    /// Sent to on every arrival; `true` when no more can come.
    ended: watch::Sender<bool>,
    /// Whether the log has reached its bound.
    log_ended: watch::Sender<bool>,
}

/// The file that a console is written to, and how much there is room for.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    file: File,
    bound: u64,
    left: u64,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Whether bytes were dropped, so that the first line lacks its beginning.
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

    /// The last lines, at most `lines` of them, fit to be shown on a terminal: no control
    /// characters, no escape sequences, no text that runs backwards, none longer than 1024
    /// characters. Empty lines are left out.
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

    /// Waits until a line that is still kept contains `text`: `true`; or until the console has
    /// ended without: `false`. Dropping the future loses nothing.
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

    /// Waits until the console's file has reached its bound; for ever where it does not.
    pub async fn log_ended(&self) {
        // The sender is in `self`: it cannot be gone.
        let _ = self.0.log_ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Waits until nothing more can come.
    pub(crate) async fn ended(&self) {
        // The sender is in `self`: it cannot be gone.
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

    /// A log that cannot be written is given up; the machine goes on.
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
    pub(crate) const fn new(file: File, bound: u64) -> Self {
        Self { file, bound, left: bound }
    }

    /// Writes what there is room for; `false` once that was not everything.
    fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_all(&bytes[..room])?;
        self.left -= room as u64;
        if room == bytes.len() {
            return Ok(true);
        }
        let end = format!("\nmetaservice: the console's file ends here, at {} bytes\n", self.bound);
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

/// Splits text from a machine into lines that are fit to be shown.
pub(crate) fn clean_lines(bytes: &[u8]) -> Vec<String> {
    bytes.split(|byte| *byte == b'\n').map(clean_line).filter(|line| !line.is_empty()).collect()
}

fn clean_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut left = MAX_LINE;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if left == 0 {
            break;
        }
        match character {
            '\x1b' => skip_escape(&mut characters),
            '\t' => shown.push(' '),
            _ if character.is_control() || is_invisible(character) => continue,
            _ => shown.push(character),
        }
        left -= 1;
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// Leaves out the rest of an escape sequence: up to the final letter of a control sequence
/// (`ESC [ ...`), up to the bell of a string (`ESC ] ...`), or one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            while characters.next_if(|c| ('\x20'..='\x3f').contains(c)).is_some() {}
            characters.next_if(|c| ('\x40'..='\x7e').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // Ended by BEL or by ESC \.
            while let Some(character) = characters.next_if(|c| *c != '\x1b') {
                if character == '\x07' {
                    return;
                }
            }
        }
        Some('\x20'..='\x2f') => {
            characters.next();
        }
        _ => {}
    }
}

/// Characters that show nothing and change the order or look of others.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_as_a_person_reads_them() {
        let bytes =
            b"one\r\n\r\n\x1b[31mred\x1b[0m\ttext  \n\x1b]0;title\x07plain\nca\x08f\xff\n\x1b(Bset";
        assert_eq!(clean_lines(bytes), ["one", "red text", "plain", "caf\u{fffd}", "set"]);
    }

    #[test]
    fn sequences_that_do_not_end_swallow_no_more_than_their_line() {
        assert_eq!(clean_lines(b"a\x1b[\nb\x1b]title\nc\x1b\nd"), ["a", "b", "c", "d"]);
        assert_eq!(clean_lines("x\u{202e}y\u{200b}z".as_bytes()), ["xyz"]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let line = &clean_lines(&[b'a'; 5000])[0];
        assert_eq!(line.len(), MAX_LINE);
    }

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
    async fn a_log_at_its_bound_is_whole_and_past_it_says_so_once() {
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

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_gets_through(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for line in clean_lines(&bytes) {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)), "{line:?}");
            }
        }

        #[test]
        fn escapes_in_any_mixture(text in "[a\x1b\\[\\];0-9m\x07\n\u{9b}\u{202e}]{0,60}") {
            for line in clean_lines(text.as_bytes()) {
                prop_assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)), "{line:?}");
            }
        }
    }
}
