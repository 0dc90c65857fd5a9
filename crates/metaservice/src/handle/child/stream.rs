//! A command's standard streams as `AsyncWrite` and `AsyncRead`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use metaservice_protocol::shell::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Shared, StreamState};

/// A command's stdin. A write waits until the guest has consumed enough of what was sent before.
/// Shutting this down or dropping it ends the command's stdin.
///
/// After the command's end, writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe). If it was
/// cut or aborted, the [`ChildError`](crate::ChildError) is the cause.
pub struct ChildStdin(Arc<Shared>);

/// A command's stdout or stderr. A guest that writes faster than this is read is held back.
/// Dropping this discards the rest.
///
/// If the command was cut or aborted before the stream ended, a read fails with the
/// [`ChildError`](crate::ChildError) as cause, after all bytes that arrived before.
pub struct ChildOutput {
    shared: Arc<Shared>,
    stream: Stream,
    /// Taken from the session and not read yet.
    block: Bytes,
}

impl ChildStdin {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Sends as many of the first bytes as there is room for, at least one, and removes them.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let (mut state, count) = ready!(self.poll_room(cx, bytes.len()))?;
        state.session.write(Stream::Stdin, bytes.split_to(count));
        drop(state);
        self.0.outgoing.notify_one();
        Poll::Ready(Ok(()))
    }

    /// Waits for room for up to `wanted` bytes. The caller gets the lock, so that the room remains.
    fn poll_room(
        &self,
        cx: &Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<(MutexGuard<'_, StreamState>, usize)>> {
        // Under the lock, so that an end at this moment finds the waker.
        let mut state = self.0.lock();
        if let Some(error) = self.0.error() {
            return Poll::Ready(Err(error.into()));
        }
        if state.closed || self.0.is_over() || state.session.is_finished(Stream::Stdin) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = wanted.min(state.session.writable(Stream::Stdin));
        if count == 0 && wanted > 0 {
            return wait(&mut state, Stream::Stdin, cx);
        }
        Poll::Ready(Ok((state, count)))
    }

    /// The number of bytes that the guest has consumed.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.lock().session.acknowledged(Stream::Stdin)
    }

    /// Ends the stream.
    pub(crate) fn finish(&self) {
        self.0.update(|state| state.session.finish(Stream::Stdin));
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (mut state, count) = ready!(self.poll_room(cx, buf.len()))?;
        state.session.write(Stream::Stdin, Bytes::copy_from_slice(&buf[..count]));
        drop(state);
        self.0.outgoing.notify_one();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The pump sends at once: there is nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        self.finish();
    }
}

impl ChildOutput {
    pub(super) fn new(shared: &Arc<Shared>, stream: Stream) -> Self {
        Self { shared: Arc::clone(shared), stream, block: Bytes::new() }
    }
}

impl AsyncRead for ChildOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.block.is_empty() {
            let stream = self.stream;
            let mut state = self.shared.lock();
            match state.session.read(stream) {
                Some(block) => {
                    drop(state);
                    self.shared.outgoing.notify_one();
                    self.block = block;
                }
                None if state.session.is_ended(stream) => return Poll::Ready(Ok(())),
                None => {
                    if let Some(error) = self.shared.error() {
                        return Poll::Ready(Err(error.into()));
                    }
                    if state.closed {
                        return Poll::Ready(Ok(()));
                    }
                    return wait(&mut state, stream, cx);
                }
            }
        }
        let count = self.block.len().min(buf.remaining());
        buf.put_slice(&self.block[..count]);
        self.block.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildOutput {
    fn drop(&mut self) {
        let stream = self.stream;
        self.shared.update(|state| {
            state.discarded[usize::from(stream.number())] = true;
            while state.session.read(stream).is_some() {}
        });
    }
}

fn wait<T>(state: &mut StreamState, stream: Stream, cx: &Context<'_>) -> Poll<T> {
    state.wakers[usize::from(stream.number())] = Some(cx.waker().clone());
    Poll::Pending
}

impl fmt::Debug for ChildStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildStdin").finish()
    }
}

impl fmt::Debug for ChildOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildOutput").field(&self.stream).finish()
    }
}
