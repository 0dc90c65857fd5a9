//! The log sinks of a job: the one that the caller gives, and a file if the description names one.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use metaservice_private::lock;
use tokio::io::AsyncWrite;

use super::destination;

/// A log sink of any kind.
pub(crate) type LogSink = Pin<Box<dyn AsyncWrite + Send>>;

/// The reader of the caller's log sink has closed it, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the log has closed it")]
struct Unread;

/// Whether an error says that the reader of the caller's log sink has closed it.
#[must_use]
pub fn is_unread(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let shared = error.downcast_ref::<Arc<io::Error>>().map(Arc::as_ref);
        let inner = error.downcast_ref::<io::Error>().or(shared).and_then(io::Error::get_ref);
        if inner.is_some_and(<dyn Error + Send + Sync>::is::<Unread>) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Joins the caller's sinks, one for all output or one for each, with the file of the description.
/// Waits for the reader of a FIFO.
pub(crate) async fn open(
    sink: LogSink,
    stderr: Option<LogSink>,
    file: Option<PathBuf>,
) -> io::Result<(LogSink, Option<LogSink>)> {
    let sink: LogSink = Box::pin(Observed(sink));
    let stderr = stderr.map(|stderr| -> LogSink { Box::pin(Observed(stderr)) });
    let Some(path) = file else { return Ok((sink, stderr)) };
    tracing::debug!(path = %path.display(), "opening the log's file");
    let file = tokio::task::spawn_blocking(move || destination::open_output(&path)).await??;
    let file = SharedFile(Arc::new(Mutex::new(tokio::fs::File::from_std(file))));
    let tee =
        |first| -> LogSink { Box::pin(Tee { first, second: file.clone(), owed: BytesMut::new() }) };
    Ok((tee(sink), stderr.map(tee)))
}

/// The file, which gets both outputs. Of the sinks that write it, one is flushed before the other
/// is written, so their bytes are in order.
#[derive(Clone)]
struct SharedFile(Arc<Mutex<tokio::fs::File>>);

impl AsyncWrite for SharedFile {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

/// The caller's sink. Its errors tell a reader that has gone from one of the file.
struct Observed(LogSink);

fn mark(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        io::Error::new(error.kind(), Unread)
    } else {
        error
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes).map_err(mark)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx).map_err(mark)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx).map_err(mark)
    }
}

/// Writes everything to two sinks. Bytes that the first has taken are owed to the second, and are
/// written to it before the first gets more.
struct Tee<A, B> {
    first: A,
    second: B,
    owed: BytesMut,
}

impl<A: Unpin, B: AsyncWrite + Unpin> Tee<A, B> {
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let Self { second, owed, .. } = self;
            match ready!(Pin::new(second).poll_write(cx, owed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => owed.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<A: AsyncWrite + Unpin, B: AsyncWrite + Unpin> AsyncWrite for Tee<A, B> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pay(cx))?;
        let count = ready!(Pin::new(&mut self.first).poll_write(cx, buf))?;
        self.owed.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(cx))?;
        ready!(Pin::new(&mut self.first).poll_flush(cx))?;
        Pin::new(&mut self.second).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(cx))?;
        ready!(Pin::new(&mut self.first).poll_shutdown(cx))?;
        Pin::new(&mut self.second).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_get_everything_at_their_own_pace() {
        let (first, mut from_first) = tokio::io::duplex(7);
        let (second, mut from_second) = tokio::io::duplex(3);
        let mut tee = Tee { first, second, owed: BytesMut::new() };
        let content: Vec<u8> = (0..=255).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let writing = async {
            tee.write_all(&content).await.unwrap();
            tee.shutdown().await.unwrap();
            drop(tee);
        };
        let (_, a_read, b_read) =
            tokio::join!(writing, from_first.read_to_end(&mut a), from_second.read_to_end(&mut b));
        assert_eq!((a_read.unwrap(), b_read.unwrap()), (256, 256));
        assert_eq!((&a, &b), (&content, &content));
    }

    #[tokio::test]
    async fn a_second_that_fails_is_an_error() {
        let (second, reader) = tokio::io::duplex(3);
        drop(reader);
        let mut tee = Tee { first: tokio::io::sink(), second, owed: BytesMut::new() };
        tee.write_all(b"x").await.unwrap();
        assert!(tee.flush().await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_told_from_a_file_that_fails() {
        let (sink, reader) = tokio::io::duplex(3);
        drop(reader);
        let mut unread = Observed(Box::pin(sink));
        let error = unread.write_all(b"x").await.unwrap_err();
        assert!(is_unread(&error), "{error}");
        let (file, reader) = tokio::io::duplex(3);
        drop(reader);
        let first = Observed(Box::pin(tokio::io::sink()));
        let mut tee = Tee { first, second: file, owed: BytesMut::new() };
        tee.write_all(b"x").await.unwrap();
        assert!(!is_unread(&tee.flush().await.unwrap_err()));
    }

    #[tokio::test]
    async fn the_file_has_both_outputs_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let ((stdout, mut from_stdout), (stderr, mut from_stderr)) =
            (tokio::io::duplex(100), tokio::io::duplex(100));
        let opened = open(Box::pin(stdout), Some(Box::pin(stderr)), Some(path.clone())).await;
        let (mut stdout, stderr) = opened.unwrap();
        let mut stderr = stderr.unwrap();
        for text in ["one ", "three "] {
            stdout.write_all(text.as_bytes()).await.unwrap();
            stdout.flush().await.unwrap();
            stderr.write_all(b"two ").await.unwrap();
            stderr.flush().await.unwrap();
        }
        drop((stdout, stderr));
        let (mut out, mut err) = (String::new(), String::new());
        from_stdout.read_to_string(&mut out).await.unwrap();
        from_stderr.read_to_string(&mut err).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("one three ", "two two "));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one two three two ");
    }
}
