//! A connection of the guest, as a stream.

use std::{
    io,
    net::SocketAddrV4,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{error::StreamError, interface::ConnectionId, shared::Shared};

/// A TCP connection of the guest: to the service, or through the card in either direction.
///
/// A read returns what has arrived, and end-of-file once the guest has ended its direction. A slow
/// reader closes the window, and the guest waits. A write takes as much as fits. Flushing does
/// nothing, because everything that was taken is sent. `shutdown` ends this direction after
/// everything that was written.
///
/// Dropping it is an orderly close, not a reset. What was written is still delivered, as long as
/// the guest takes some of it within each quarter of an hour. A connection that is not dropped
/// never times out, however long the guest is silent.
///
/// The guest's keep-alive probes are answered. Through the card, the guest is probed after five
/// minutes of silence: if it has restarted, the connection ends with a reset.
///
/// # Errors
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) if the guest has reset it.
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the machine or the driver has ended;
/// what arrived before can be read first. [`BrokenPipe`](io::ErrorKind::BrokenPipe) for a write
/// after `shutdown`. Each contains a [`StreamError`].
///
/// ```
/// # use metaservice_nic::Connection;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn echo(mut connection: Connection) -> std::io::Result<()> {
///     let mut request = Vec::new();
///     connection.read_to_end(&mut request).await?;
///     connection.write_all(&request).await?;
///     connection.shutdown().await
/// }
/// ```
pub struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
    peer: SocketAddrV4,
    port: u16,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        peer: SocketAddrV4,
        port: u16,
    ) -> Self {
        Self { shared, id, peer, port }
    }

    /// The guest's address and port.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddrV4 {
        self.peer
    }

    /// The port of the other end: to which the guest connected, or from which it is connected.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// Writes without a buffer of the writer: gives the free part of the send buffer to `fill`, or
    /// the first piece of it, and sends what `fill` puts there. Returns how many bytes these are,
    /// as `fill` does. `fill` is not called before there is room.
    ///
    /// The card waits for `fill`, which must not use a connection of the same card.
    ///
    /// # Errors
    /// As [`poll_write`](AsyncWrite::poll_write).
    pub fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.shared.act(|state| {
            if state.closed {
                return Poll::Ready(Err(StreamError::Gone.into()));
            }
            match state.interface.fill(self.id, |room| fill(context, room)) {
                Ok(Some(count)) => Poll::Ready(Ok(count)),
                Ok(None) => {
                    let stream = state.streams.entry(self.id).or_default();
                    stream.writer = Some(context.waker().clone());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            }
        })
    }

    /// Resets the connection. What was written and not delivered is discarded.
    pub fn reset(self) {
        self.shared.act(|state| state.interface.reset(self.id));
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.shared.act(|state| {
            let result = state.interface.read(self.id, |bytes| {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                count
            });
            match result {
                Ok(Some(_)) => Poll::Ready(Ok(())),
                Ok(None) if state.closed => Poll::Ready(Err(StreamError::Gone.into())),
                Ok(None) => {
                    state.streams.entry(self.id).or_default().reader =
                        Some(context.waker().clone());
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            }
        })
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.act(|state| {
            if state.closed {
                return Poll::Ready(Err(StreamError::Gone.into()));
            }
            let mut total = 0;
            for slice in slices {
                match state.interface.write(self.id, slice) {
                    Ok(Some(count)) => {
                        total += count;
                        if count < slice.len() {
                            break;
                        }
                    }
                    Ok(None) if total > 0 => break,
                    Ok(None) => {
                        let stream = state.streams.entry(self.id).or_default();
                        stream.writer = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            Poll::Ready(Ok(total))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.act(|state| {
            if state.closed {
                return Poll::Ready(Err(StreamError::Gone.into()));
            }
            state.interface.shut_down(self.id);
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.streams.remove(&self.id);
        state.interface.release(self.id, now);
        // If this was the last connection, the driver must notice that it can end.
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("peer", &self.peer)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
