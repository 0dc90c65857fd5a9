//! Simulated machines: a run writes known bytes over some time, and notes that it ran.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metaservice_fleet::log::Stream;
use metaservice_fleet::worker::{Run, RunError, Runner, Running};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt;

/// Milliseconds since 1970. All processes of the test, and the servers, have the same clock.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The first word of a command whose first attempt takes longer than a lease.
pub(crate) const LONG: &str = "long";

/// What an attempt of a job does. It follows from their numbers alone.
pub(crate) struct Script {
    pub(crate) parts: Vec<(Stream, Vec<u8>)>,
    /// Before each part.
    pub(crate) pause: Duration,
    pub(crate) status: u8,
}

impl Script {
    pub(crate) fn of(id: &str, attempt: u32) -> Self {
        let mut hasher = DefaultHasher::new();
        (id, attempt).hash(&mut hasher);
        let mut random = StdRng::seed_from_u64(hasher.finish());
        let count = random.random_range(1..=8);
        let parts = (0..count).map(|_| {
            let stream = if random.random() { Stream::Stdout } else { Stream::Stderr };
            let mut bytes = vec![0; random.random_range(0..30_000)];
            random.fill(&mut bytes[..]);
            (stream, bytes)
        });
        let parts = parts.collect();
        let whole = Duration::from_millis(random.random_range(10..2000));
        Self { parts, pause: whole / count, status: random.random_range(0..4) }
    }

    /// All bytes of an output.
    pub(crate) fn output(&self, wanted: Stream) -> Vec<u8> {
        let parts = self.parts.iter().filter(|(stream, _)| *stream == wanted);
        parts.flat_map(|(_, bytes)| bytes).copied().collect()
    }
}

/// Runs scripts, and notes each run in a file that all workers share.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) worker: String,
    pub(crate) journal: PathBuf,
}

impl Runner for Fake {
    fn run(&self, mut run: Run) -> Running {
        let script = Script::of(run.id.as_str(), run.attempt);
        let note = format!("{} {} {}", run.id, run.attempt, self.worker);
        let note = Note::begin(&self.journal, note);
        Box::pin(async move {
            let _note = note;
            if run.attempt == 1 && run.spec.command.first().is_some_and(|word| word == LONG) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            for (stream, bytes) in &script.parts {
                tokio::time::sleep(script.pause).await;
                let output = match stream {
                    Stream::Stdout => &mut run.stdout,
                    Stream::Stderr => &mut run.stderr,
                };
                let written = output.write_all(bytes).await;
                written.map_err(|error| RunError::Machine(error.to_string()))?;
            }
            Ok(script.status)
        })
    }
}

/// Notes the begin of a run, and its end when it is dropped.
struct Note {
    file: File,
    run: String,
}

impl Note {
    fn begin(journal: &Path, run: String) -> Self {
        let file = File::options().append(true).create(true).open(journal).unwrap();
        let mut note = Self { file, run };
        note.write("begin");
        note
    }

    /// One call, so that the lines of several processes do not mix.
    fn write(&mut self, what: &str) {
        self.file.write_all(format!("{} {what} {}\n", self.run, now()).as_bytes()).unwrap();
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.write("end");
    }
}
