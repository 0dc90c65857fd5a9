//! Standard error.
//!
//! A separate thread writes it. A reader that stalls does not block the tool, and a closed standard
//! error changes nothing.
//!
//! No function here fails. Text for which the queue has no room is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};

/// The maximum number of queued bytes.
const MOST: usize = 4 * 1024 * 1024;

static STDERR: LazyLock<Queue> = LazyLock::new(|| Queue::start(io::stderr(), MOST));

/// Whether the terminal at standard error begins no new line by itself.
static RAW: AtomicBool = AtomicBool::new(false);

/// While this lives, lines end so that a raw terminal shows them as lines.
#[derive(Debug)]
pub(crate) struct RawLines;

impl RawLines {
    /// With `raw` false, nothing changes.
    pub(crate) fn begin(raw: bool) -> Self {
        RAW.store(raw && io::stderr().is_terminal(), Ordering::Relaxed);
        Self
    }
}

impl Drop for RawLines {
    fn drop(&mut self) {
        RAW.store(false, Ordering::Relaxed);
    }
}

/// Writes text and a line break.
pub(crate) fn line(text: &str) {
    let text = if RAW.load(Ordering::Relaxed) {
        // The cursor may be behind output of the guest.
        format!("\r{}\r\n", text.replace('\n', "\r\n"))
    } else {
        format!("{text}\n")
    };
    STDERR.push(text.into_bytes());
}

/// Waits until all queued text was written, or its write has failed. A signal can end the process
/// during this wait.
pub(crate) fn drain() {
    STDERR.drain();
}

/// The writer for `tracing`. Each write is a complete line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace;

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        STDERR.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Entry {
    Text(Vec<u8>),
    Drained(mpsc::Sender<()>),
}

/// A queue of text for a writer that may stall or fail.
struct Queue {
    /// `None` if the thread could not be started. Then nothing is written.
    entries: Option<mpsc::Sender<Entry>>,
    state: Arc<State>,
    most: usize,
}

#[derive(Default)]
struct State {
    /// The number of queued bytes.
    waiting: AtomicUsize,
    /// The number of dropped texts.
    lost: AtomicUsize,
}

impl Queue {
    fn start(writer: impl Write + Send + 'static, most: usize) -> Self {
        let (sender, entries) = mpsc::channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || write_all(writer, &entries, &shared));
        Self { entries: thread.is_ok().then_some(sender), state, most }
    }

    fn push(&self, text: Vec<u8>) {
        let length = text.len();
        let before = self.state.waiting.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > self.most {
            self.state.waiting.fetch_sub(length, Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(entries) = &self.entries {
            // The thread lives as long as the process, so this does not fail.
            let _ = entries.send(Entry::Text(text));
        }
    }

    fn drain(&self) {
        let (done, drained) = mpsc::channel();
        if let Some(entries) = &self.entries
            && entries.send(Entry::Drained(done)).is_ok()
        {
            let _ = drained.recv();
        }
    }
}

fn write_all(mut writer: impl Write, entries: &mpsc::Receiver<Entry>, state: &State) {
    for entry in entries {
        match entry {
            Entry::Text(text) => {
                // There is no place to report the error. A later write may succeed.
                let _ = writer.write_all(&text).and_then(|()| writer.flush());
                state.waiting.fetch_sub(text.len(), Ordering::Relaxed);
                let lost = state.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let text = format!("metaservice: {lost} lines are missing here\n");
                    let _ = writer.write_all(text.as_bytes());
                }
            }
            Entry::Drained(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};

    use super::*;

    #[test]
    fn a_reader_that_stalls_holds_up_nothing_and_learns_what_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::start(writer, 1 << 20);
        for _ in 0..300 {
            queue.push(vec![b'x'; 10_000]);
        }
        let read = |reader: &mut PipeReader| {
            let mut all = String::new();
            reader.read_to_string(&mut all).unwrap();
            all
        };
        let reading = std::thread::spawn(move || read(&mut reader));
        queue.drain();
        drop(queue);
        let all = reading.join().unwrap();
        let kept = all.matches('x').count();
        assert!((1 << 20) - 10_000 < kept && kept < 3_000_000, "{kept}");
        assert!(all.contains(" lines are missing here\n"), "{}", &all[all.len() - 100..]);
    }

    #[test]
    fn a_writer_that_fails_is_no_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let queue = Queue::start(full, 1000);
        queue.push(b"text".to_vec());
        queue.drain();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::start(writer, 1000);
        queue.push(b"text".to_vec());
        queue.push(b"more".to_vec());
        queue.drain();
        assert_eq!(queue.state.waiting.load(Ordering::Relaxed), 0);
    }
}
