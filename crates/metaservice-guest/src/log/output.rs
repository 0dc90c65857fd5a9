//! The reading end of a job's output.
//!
//! Owns the decision when an output has ended: when the command has ended and its pipes are empty.
//! The end of a pipe itself would be wrong. A descendant of the command may hold the pipe for
//! ever, and before the command has opened it there is no writer at all.
//!
//! With two pipes, one for stdout and one for stderr, it also owns the order between them. Pipes
//! have no times, but epoll reports them in the order in which they became readable. So what was
//! written first to an empty pipe comes first. What a command writes alternately, faster than this
//! process runs, comes in runs of each output.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use metaservice_protocol::LogOutput;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::sync::watch;

use crate::system::blocks::{BLOCK, BlockPool};
use crate::system::descriptor::Descriptor;

/// The size of the pipe in bytes: the most that Linux grants without privileges. It buffers the
/// output while the supervisor waits for the service.
const PIPE_SIZE: usize = 1024 * 1024;

/// The size of a separate pipe for stderr.
const STDERR_PIPE_SIZE: usize = 256 * 1024;

/// The pipes of a job's output: one for both outputs, or one for each.
#[derive(Debug)]
pub(crate) struct OutputPipes {
    readers: Vec<OwnedFd>,
    /// The command's ends. They stay open, so that a pipe never reports an end of its own.
    writers: Vec<OwnedFd>,
}

impl OutputPipes {
    /// Creates the pipes: two if the outputs are `separate`.
    pub(crate) fn create(separate: bool) -> io::Result<Self> {
        let mut pipes = Self { readers: Vec::new(), writers: Vec::new() };
        let sizes = [PIPE_SIZE, STDERR_PIPE_SIZE];
        for size in sizes.into_iter().take(if separate { 2 } else { 1 }) {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            // A smaller pipe is slower, but works.
            let _ = rustix::pipe::fcntl_setpipe_size(&reader, size);
            pipes.readers.push(reader);
            pipes.writers.push(writer);
        }
        Ok(pipes)
    }

    /// The command's end of an output.
    pub(crate) fn writer(&self, output: LogOutput) -> &OwnedFd {
        match (output, &self.writers[..]) {
            (LogOutput::Stderr, [.., stderr]) => stderr,
            (_, writers) => &writers[0],
        }
    }
}

/// The reading end of a job's output.
#[derive(Debug)]
pub(crate) struct Output {
    pipes: OutputPipes,
    epoll: Descriptor,
    /// The pipes that may have bytes, in the order in which they got them.
    ready: VecDeque<usize>,
    ended: watch::Receiver<bool>,
    /// The pipes were searched after the end.
    searched: bool,
    buffer: Vec<u8>,
    pool: BlockPool,
}

impl Output {
    /// `ended` becomes true when the command has ended.
    pub(crate) fn new(pipes: OutputPipes, ended: watch::Receiver<bool>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, reader) in (0..).zip(&pipes.readers) {
            // Edge-triggered: a pipe is reported again only after new bytes, and in their order.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, reader, epoll::EventData::new_u64(number), flags)?;
        }
        let pool = BlockPool::default();
        Ok(Self {
            pipes,
            epoll: Descriptor::new(epoll)?,
            ready: VecDeque::new(),
            ended,
            searched: false,
            buffer: pool.take(),
            pool,
        })
    }

    /// Whether stdout and stderr are separate.
    pub(crate) fn is_separate(&self) -> bool {
        self.pipes.readers.len() > 1
    }

    /// The next bytes of one output; `None` at the end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Option<(LogOutput, Bytes)> {
        loop {
            // First `ended`, then the pipes: what was written before the end is in them now.
            let ended = *self.ended.borrow_and_update();
            if self.is_separate() && !self.ready.is_empty() {
                // An output that never pauses must not hide that the other one has bytes.
                let _ = collect(self.epoll.as_fd(), &mut self.ready);
            }
            if let Some(chunk) = self.read_ready() {
                return Some(chunk);
            }
            if ended {
                if std::mem::replace(&mut self.searched, true) {
                    return None;
                }
                self.ready.extend(0..self.pipes.readers.len());
                continue;
            }
            let Self { epoll, ended, ready, .. } = self;
            tokio::select! {
                readable = epoll.readable() => match readable {
                    // Readiness is edge-triggered: it is cleared only if nothing is reported.
                    Ok(mut guard) => drop(guard.try_io(|epoll| collect(epoll, ready))),
                    Err(_) => return None,
                },
                changed = ended.changed() => if changed.is_err() {
                    return None;
                },
            }
        }
    }

    /// Reads from the first pipe that has bytes.
    fn read_ready(&mut self) -> Option<(LogOutput, Bytes)> {
        while let Some(number) = self.ready.pop_front() {
            match rustix::io::read(&self.pipes.readers[number], &mut self.buffer) {
                Ok(count @ 1..) => {
                    self.keep_ready(number, count);
                    return Some((LogOutput::ALL[number], self.taken(count)));
                }
                Err(Errno::INTR) => self.ready.push_front(number),
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    /// Keeps a pipe in the order if it may have more bytes than the `count` that were read. They
    /// come after what is in the other pipe.
    fn keep_ready(&mut self, number: usize, count: usize) {
        let Self { pipes, epoll, ready, buffer, .. } = self;
        if count < buffer.len() {
            // A read ends at the end of a packet, if the command writes packets (`O_DIRECT` in
            // pipe(2), as `dd oflag=direct` does). epoll does not report those that follow.
            if rustix::io::ioctl_fionread(&pipes.readers[number]).unwrap_or(0) == 0 {
                return;
            }
            // What was written meanwhile has its own place.
            let _ = collect(epoll.as_fd(), ready);
        }
        if !ready.contains(&number) {
            ready.push_back(number);
        }
    }

    fn taken(&mut self, count: usize) -> Bytes {
        if count < BLOCK / 4 {
            return Bytes::copy_from_slice(&self.buffer[..count]);
        }
        let buffer = std::mem::replace(&mut self.buffer, self.pool.take());
        self.pool.lend(buffer, count)
    }
}

/// Adds the pipes that have got bytes, in the order in which they did.
fn collect(epoll: impl AsFd, ready: &mut VecDeque<usize>) -> io::Result<()> {
    let mut events =
        [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let count = epoll::wait(epoll, &mut events, Some(&now))?;
    if count == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    for event in &events[..count] {
        let number = usize::from(event.data.u64() != 0);
        if !ready.contains(&number) {
            ready.push_back(number);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn an_output_ends_with_its_command_once_it_is_empty() {
        for separate in [false, true] {
            let pipes = OutputPipes::create(separate).unwrap();
            let writers = LogOutput::ALL.map(|output| pipes.writer(output).try_clone().unwrap());
            let (end, ended) = watch::channel(false);
            let mut output = Output::new(pipes, ended).unwrap();
            let read = tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some((_, chunk)) = output.read().await {
                    all.extend(chunk);
                }
                all
            });
            tokio::task::yield_now().await;
            rustix::io::write(&writers[0], b"one ").unwrap();
            tokio::task::yield_now().await;
            rustix::io::write(&writers[1], b"two").unwrap();
            end.send_replace(true);
            // The writers are still open, as in a descendant that still runs.
            assert_eq!(read.await.unwrap(), b"one two");
            drop(writers);
        }
    }

    #[tokio::test]
    async fn packets_are_all_read_while_the_command_runs() {
        for separate in [false, true] {
            let pipes = OutputPipes::create(separate).unwrap();
            let writers = LogOutput::ALL.map(|output| pipes.writer(output).try_clone().unwrap());
            let (_end, ended) = watch::channel(false);
            let mut output = Output::new(pipes, ended).unwrap();
            for writer in &writers {
                // As `dd oflag=direct` does with its stdout.
                let flags = rustix::fs::fcntl_getfl(writer).unwrap();
                rustix::fs::fcntl_setfl(writer, flags | rustix::fs::OFlags::DIRECT).unwrap();
                for packet in [b"a", b"b", b"c"] {
                    rustix::io::write(writer, packet).unwrap();
                }
            }
            let mut all = Vec::new();
            let six = async {
                while all.len() < 6 {
                    all.extend(output.read().await.unwrap().1);
                }
            };
            let read = tokio::time::timeout(std::time::Duration::from_secs(5), six).await;
            assert!(read.is_ok(), "only {:?} of two outputs", String::from_utf8_lossy(&all));
        }
    }

    #[tokio::test]
    async fn what_was_written_first_comes_first() {
        let digits: [&[u8]; 2] = [b"0", b"1"];
        for first in [0, 1, 0, 1] {
            let pipes = OutputPipes::create(true).unwrap();
            let writers = LogOutput::ALL.map(|output| pipes.writer(output).try_clone().unwrap());
            let (_end, ended) = watch::channel(false);
            let mut output = Output::new(pipes, ended).unwrap();
            for _ in 0..3 {
                for number in [first, 1 - first] {
                    rustix::io::write(&writers[number], digits[number]).unwrap();
                }
                for number in [first, 1 - first] {
                    let (from, bytes) = output.read().await.unwrap();
                    assert_eq!((from, &bytes[..]), (LogOutput::ALL[number], digits[number]));
                }
            }
        }
    }

    #[tokio::test]
    async fn an_output_that_never_pauses_does_not_hold_up_the_other() {
        let pipes = OutputPipes::create(true).unwrap();
        let [stdout, stderr] =
            LogOutput::ALL.map(|output| pipes.writer(output).try_clone().unwrap());
        let (_end, ended) = watch::channel(false);
        let mut output = Output::new(pipes, ended).unwrap();
        let flood =
            std::thread::spawn(move || while rustix::io::write(&stdout, &[0; BLOCK]).is_ok() {});
        output.read().await.unwrap();
        rustix::io::write(&stderr, b"here").unwrap();
        let mut before = 0;
        while output.read().await.unwrap().0 == LogOutput::Stdout {
            before += 1;
            assert!(before < 100, "stderr is held up");
        }
        drop(output);
        flood.join().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_output_is_what_was_written_to_it(
            writes in prop::collection::vec((0usize..2, 1usize..70_000, any::<bool>()), 0..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pipes = OutputPipes::create(true).unwrap();
                let writers = LogOutput::ALL.map(|output| pipes.writer(output).try_clone().unwrap());
                let (end, ended) = watch::channel(false);
                let mut output = Output::new(pipes, ended).unwrap();
                let (mut wrote, mut got) = ([0, 0], [0, 0]);
                for (number, length, read) in writes {
                    // The pipes have room: what was written is read before they are full.
                    if wrote[number] - got[number] + length <= STDERR_PIPE_SIZE / 2 {
                        wrote[number] += rustix::io::write(&writers[number], &vec![0; length]).unwrap();
                    }
                    if read && wrote != got {
                        let (from, bytes) = output.read().await.unwrap();
                        got[usize::from(from == LogOutput::Stderr)] += bytes.len();
                    }
                }
                end.send_replace(true);
                while let Some((from, bytes)) = output.read().await {
                    got[usize::from(from == LogOutput::Stderr)] += bytes.len();
                }
                prop_assert_eq!(got, wrote);
                Ok(())
            })?;
        }
    }
}
