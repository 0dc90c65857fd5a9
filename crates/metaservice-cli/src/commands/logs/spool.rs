//! A queue of bytes between a source and a slow reader.
//!
//! The first bytes are kept in memory, the others in an unnamed file. If the file cannot grow, the
//! source has to wait.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use metaservice_private::lock;
use tokio::sync::Notify;

/// How many bytes are kept in memory.
const IN_MEMORY: usize = 1024 * 1024;

/// How many bytes are read from the file at once.
const BLOCK: u64 = 256 * 1024;

/// Passes bytes from one task to another, in order.
pub(crate) struct Spool {
    state: Mutex<State>,
    moved: Notify,
    /// Creates the file.
    make: fn() -> io::Result<File>,
}

#[derive(Default)]
struct State {
    memory: VecDeque<Bytes>,
    held: usize,
    file: Option<File>,
    /// The read and write positions in the file. Its bytes come after those in memory.
    taken: u64,
    end: u64,
    /// A write to the file has failed. It gets no more bytes until it is empty.
    full: bool,
    ended: bool,
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self::with_file(|| {
            let directory = metaservice_private::bases::temporary().map_err(io::Error::other)?;
            tempfile::tempfile_in(directory)
        })
    }

    fn with_file(make: fn() -> io::Result<File>) -> Self {
        Self { state: Mutex::default(), moved: Notify::new(), make }
    }

    /// Adds bytes. Waits if there is no room.
    pub(crate) async fn push(&self, bytes: Bytes) {
        loop {
            // Register before the check of the state, so that no notification is lost.
            let moved = self.moved.notified();
            if tokio::task::block_in_place(|| self.state().push(&bytes, self.make)) {
                return self.moved.notify_waiters();
            }
            moved.await;
        }
    }

    /// Marks the end of the bytes.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.moved.notify_waiters();
    }

    /// Returns the next bytes, or `None` at the end.
    pub(crate) async fn pop(&self) -> io::Result<Option<Bytes>> {
        loop {
            let moved = self.moved.notified();
            let next = tokio::task::block_in_place(|| self.state().pop())?;
            match next {
                Some(bytes) => {
                    self.moved.notify_waiters();
                    return Ok(Some(bytes));
                }
                None if self.state().ended => return Ok(None),
                None => moved.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Adds bytes, and returns whether there was room.
    fn push(&mut self, bytes: &Bytes, make: fn() -> io::Result<File>) -> bool {
        if self.taken == self.end && self.held < IN_MEMORY {
            self.held += bytes.len();
            self.memory.push_back(bytes.clone());
            return true;
        }
        if !self.full && self.file.is_none() {
            self.file = make().ok();
        }
        let written = match &self.file {
            Some(file) if !self.full => file.write_all_at(bytes, self.end).is_ok(),
            _ => false,
        };
        // A failed write may leave bytes after the end. Later writes overwrite them, or the file is
        // truncated.
        self.full = !written;
        if written {
            self.end += bytes.len() as u64;
        }
        written
    }

    fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.memory.pop_front() {
            self.held -= bytes.len();
            if self.taken == self.end {
                self.full = false;
            }
            return Ok(Some(bytes));
        }
        let length = BLOCK.min(self.end - self.taken);
        let Some(file) = self.file.as_ref().filter(|_| length > 0) else { return Ok(None) };
        let mut block = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut block, self.taken)?;
        self.taken += length;
        if self.taken == self.end {
            file.set_len(0)?;
            (self.taken, self.end, self.full) = (0, 0, false);
        }
        Ok(Some(block.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn without_room() -> io::Result<File> {
        File::options().read(true).write(true).open("/dev/full")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_comes_out_is_what_went_in(
            steps in prop::collection::vec((any::<bool>(), 1usize..600_000), 1..40),
        ) {
            let (mut state, mut put, mut got) = (State::default(), Vec::new(), Vec::new());
            for (n, (push, length)) in steps.into_iter().enumerate() {
                if push {
                    let bytes = Bytes::from(vec![u8::try_from(n).unwrap(); length]);
                    prop_assert!(state.push(&bytes, tempfile::tempfile));
                    put.extend_from_slice(&bytes);
                } else if let Some(bytes) = state.pop().unwrap() {
                    got.extend_from_slice(&bytes);
                }
                prop_assert!(state.held <= IN_MEMORY + 600_000);
            }
            while let Some(bytes) = state.pop().unwrap() {
                got.extend_from_slice(&bytes);
            }
            prop_assert!(got == put);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_there_is_no_room_the_source_waits_and_nothing_is_lost() {
        for make in [tempfile::tempfile as fn() -> io::Result<File>, without_room] {
            let spool = Spool::with_file(make);
            let filling = async {
                for n in 0..100u8 {
                    spool.push(Bytes::from(vec![n; 100_000])).await;
                }
                spool.end();
            };
            let emptying = async {
                let mut all = Vec::new();
                while let Some(bytes) = spool.pop().await.unwrap() {
                    all.extend_from_slice(&bytes);
                }
                all
            };
            let ((), all) = tokio::join!(filling, emptying);
            let expected: Vec<u8> = (0..100u8).flat_map(|n| vec![n; 100_000]).collect();
            assert!(all == expected, "{} bytes", all.len());
        }
    }
}
