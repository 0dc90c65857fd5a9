//! Everything that the tool prints.
//!
//! This module itself owns standard output. The submodules own standard error and the texts.
//!
//! If the reader closes standard output early, as in `run | head -1`, the verb ends without an
//! error.

pub(crate) mod contact;
pub(crate) mod events;
mod network;
pub(crate) mod printer;
pub(crate) mod progress;
pub(crate) mod questions;
pub(crate) mod remarks;
pub(crate) mod sanitize;
pub(crate) mod stderr;
pub(crate) mod table;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use metaservice_sandbox::Launcher;
use metaservice_sandbox::job::Job;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, Interest, Stderr, Stdout};

use self::printer::Printer;
use self::questions::QuestionFilter;

/// Returns whether text for this stream has colours: only on a terminal, and not if `NO_COLOR` is
/// set.
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The reader has closed standard output.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct Closed;

/// Standard output, locked.
pub(crate) struct Output(io::StdoutLock<'static>);

impl Output {
    pub(crate) fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

/// How many bytes are filtered at once.
const MAX_HELD: usize = 64 * 1024;

/// Standard output for asynchronous writes, or standard error.
pub(crate) struct AsyncOutput<W = Stdout> {
    stream: W,
    /// If the terminal is not to be asked.
    filter: Option<QuestionFilter>,
    /// Filtered bytes that are not written yet.
    held: BytesMut,
}

impl AsyncOutput {
    pub(crate) fn new() -> Self {
        Self { stream: tokio::io::stdout(), filter: None, held: BytesMut::new() }
    }

    /// For the output of a command. Unless it `answers`, which means that it gets what the terminal
    /// at standard output sends, it must not ask the terminal anything.
    pub(crate) fn of_command(answers: bool) -> Self {
        let asks_in_vain = !answers && io::stdout().is_terminal();
        Self { filter: asks_in_vain.then(QuestionFilter::default), ..Self::new() }
    }
}

impl<W: AsyncWrite + Unpin> AsyncOutput<W> {
    /// Writes the held bytes.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count =
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held)).map_err(mark)?;
            self.held.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncOutput<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(cx))?;
        let Self { stream, filter, held } = &mut *self;
        let Some(filter) = filter else {
            return Pin::new(stream).poll_write(cx, bytes).map_err(mark);
        };
        let bytes = &bytes[..bytes.len().min(MAX_HELD)];
        let mut shown = Vec::with_capacity(bytes.len());
        filter.filter(bytes, &mut shown);
        held.extend_from_slice(&shown);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx).map_err(mark)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(mark)
    }
}

/// Standard error, for stderr of a command.
///
/// A slow reader holds up the command. If it cannot be written, the bytes are dropped: what happens
/// to standard error never ends a job.
pub(crate) struct AsyncStderr<W = AsyncOutput<Stderr>>(W);

impl AsyncStderr {
    pub(crate) fn new() -> Self {
        Self(AsyncOutput { stream: tokio::io::stderr(), filter: None, held: BytesMut::new() })
    }

    /// For stderr of a command, which must not ask the terminal anything: it gets no answer.
    pub(crate) fn of_command() -> Self {
        let mut stderr = Self::new();
        stderr.0.filter = io::stderr().is_terminal().then(QuestionFilter::default);
        stderr
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncStderr<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        written.map(|written| Ok(written.unwrap_or(bytes.len())))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map(|_| Ok(()))
    }
}

/// Has a job write its log to standard output, and stderr of its command to standard error. With
/// `--json`, standard error has only events. The command `answers` if it gets what the terminal
/// sends.
pub(crate) fn log_of(launcher: Launcher, answers: bool, printer: Printer) -> Launcher {
    let launcher = launcher.log(AsyncOutput::of_command(answers));
    if printer.is_json() { launcher } else { launcher.log_stderr(AsyncStderr::of_command()) }
}

/// A time in its largest unit.
pub(crate) fn age(age: std::time::Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Writes one line.
///
/// # Errors
/// The error of the write.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    writeln!(Output::lock(), "{text}")
}

fn mark(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        io::Error::new(error.kind(), Closed)
    } else {
        error
    }
}

/// Returns whether the cause of an error is that the reader has closed standard output.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let shared = cause.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
        let inner = cause.downcast_ref::<io::Error>().or(shared).and_then(io::Error::get_ref);
        inner.and_then(|inner| inner.downcast_ref::<Closed>()).is_some()
    })
}

/// Waits until the reader of standard output has closed it. If standard output is a file, this
/// waits forever.
pub(crate) async fn reader_gone() {
    let observe = || {
        let stdout = io::stdout().as_fd().try_clone_to_owned().ok()?;
        // The replacement of this function is unsafe: its descriptor must stay the same. An
        // `OwnedFd` guarantees this.
        #[expect(deprecated, reason = "sound for an OwnedFd, and this crate has no unsafe code")]
        let stdout = AsyncFd::with_interest(stdout, Interest::ERROR).ok()?;
        Some(stdout)
    };
    if let Some(stdout) = observe() {
        while let Ok(mut guard) = stdout.ready(Interest::ERROR).await {
            if guard.ready().is_error() {
                return;
            }
            guard.clear_ready();
        }
    }
    std::future::pending::<()>().await;
}

/// Warns if the log of a job goes nowhere.
pub(crate) fn warn_of_closed(job: &Job, printer: Printer) {
    if job.log().is_none() && may_be_closed() {
        let text = "standard output is closed or /dev/null: the log is shown nowhere";
        printer.note(&format!("{text} (--log FILE writes it to a file)"));
    }
}

/// Returns whether standard output may have been closed when the process started.
///
/// The runtime then opens `/dev/null` in its place for reading and writing. A shell's redirection
/// opens it only for writing.
fn may_be_closed() -> bool {
    use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, stat};
    let stdout = io::stdout();
    let (Ok(there), Ok(null), Ok(flags)) =
        (fstat(&stdout), stat("/dev/null"), fcntl_getfl(&stdout))
    else {
        return true;
    };
    FileType::from_raw_mode(there.st_mode) == FileType::CharacterDevice
        && there.st_rdev == null.st_rdev
        && flags & OFlags::RWMODE == OFlags::RDWR
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_stderr_without_a_reader_takes_everything_and_a_slow_one_waits() {
        let (writer, mut reader) = tokio::io::duplex(3);
        let mut stderr = AsyncStderr(writer);
        let text = tokio::spawn(async move {
            stderr.write_all(b"hello").await.unwrap();
            stderr
        });
        assert!(!text.is_finished());
        let mut hello = [0; 5];
        reader.read_exact(&mut hello).await.unwrap();
        let mut stderr = text.await.unwrap();
        drop(reader);
        stderr.write_all(b"more").await.unwrap();
        stderr.flush().await.unwrap();
        stderr.shutdown().await.unwrap();
    }
}
