//! Copies a connection both ways.
//!
//! ```text
//!   guest ──► buffer ──► inspector ──► peer       the end of one direction is passed on,
//!   guest ◄── send buffer of the card ◄── peer    and the other one continues
//! ```
//!
//! A direction reads only when everything that may pass was written. So a slow reader holds its
//! writer back. What the peer sends goes into the card without another buffer. What the guest sends
//! has at most one buffer, and none while the connection waits.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use metaservice_nic::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::inspect::{Inspector, WrongName};

/// The size of a buffer, in bytes.
const BUFFER: usize = 64 << 10;

/// The most bytes of a peer that are read at once. The card waits meanwhile.
const PIECE: usize = 256 << 10;

/// A side with a send buffer that can be filled in place: see [`Connection::poll_fill`].
pub(crate) trait Fill {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>>;
}

impl Fill for Connection {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        fill: impl FnOnce(&mut Context<'_>, &mut [u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        Self::poll_fill(self, context, fill)
    }
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both directions have ended in order.
    Ended,
    /// A side has cut it.
    Reset,
    /// What the guest sends is not for the name.
    WrongName,
}

/// Why a direction cannot continue.
#[derive(Debug)]
enum Broken {
    Stream(io::Error),
    WrongName,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<WrongName> for Broken {
    fn from(_: WrongName) -> Self {
        Self::WrongName
    }
}

/// Copies until both directions have ended. Counts the bytes from the guest (`sent`) and to it
/// (`received`), also if it is cancelled.
pub(crate) async fn relay<G, P>(
    guest: &mut G,
    peer: &mut P,
    mut inspector: Inspector,
    sent: &mut u64,
    received: &mut u64,
) -> End
where
    G: AsyncRead + AsyncWrite + Fill + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
{
    let (mut outwards, mut backwards) = (Outwards::default(), Backwards::default());
    let result = poll_fn(|context| {
        let mut out = outwards.poll(context, guest, peer, &mut inspector, sent)?;
        let waited = inspector.awaits_peer();
        let back = backwards.poll(context, guest, peer, &mut inspector, received)?;
        // Nothing can come that lets the guest continue.
        if back.is_ready() && inspector.awaits_peer() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        // What the peer has sent may let the guest continue.
        if waited && !inspector.awaits_peer() {
            out = outwards.poll(context, guest, peer, &mut inspector, sent)?;
        }
        ready!(out);
        ready!(back);
        Poll::Ready(Ok::<_, Broken>(()))
    });
    match result.await {
        Ok(()) => End::Ended,
        Err(Broken::Stream(error)) => {
            tracing::debug!(%error, "a connection was cut");
            End::Reset
        }
        Err(Broken::WrongName) => End::WrongName,
    }
}

/// The direction from the guest to the peer, which is checked.
#[derive(Debug, Default)]
struct Outwards {
    buffer: Vec<u8>,
    /// How many bytes of the buffer may pass, and how many of them were written.
    allowed: usize,
    written: usize,
    /// The guest sends no more.
    ended: bool,
    /// The end was passed on.
    done: bool,
}

impl Outwards {
    /// Copies as much as possible. Ready when the end was passed on.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        guest: &mut (impl AsyncRead + Unpin),
        mut peer: &mut (impl AsyncWrite + Unpin),
        inspector: &mut Inspector,
        count: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        while !self.done {
            while self.written < self.allowed {
                let bytes = &self.buffer[self.written..self.allowed];
                let wrote = ready!(Pin::new(&mut peer).poll_write(context, bytes))?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                self.written += wrote;
                *count += wrote as u64;
            }
            self.buffer.drain(..std::mem::take(&mut self.written));
            self.allowed = 0;
            if !self.buffer.is_empty() {
                self.allowed = inspector.guest(&self.buffer)?;
            }
            if self.allowed > 0 {
                continue;
            }
            if self.ended {
                // A part of a message that cannot be checked any more.
                if !self.buffer.is_empty() {
                    return Poll::Ready(Err(Broken::WrongName));
                }
                ready!(Pin::new(&mut peer).poll_shutdown(context))?;
                self.done = true;
                break;
            }
            if inspector.awaits_peer() {
                return Poll::Pending;
            }
            self.ended = ready!(self.poll_read(context, guest))? == 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        guest: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        // A head of a request can fill a whole buffer.
        self.buffer.reserve(BUFFER);
        let read = pin!(guest.read_buf(&mut self.buffer)).poll(context);
        if read.is_pending() {
            self.buffer.shrink_to_fit();
        }
        read
    }
}

/// The direction from the peer to the guest.
#[derive(Debug, Default)]
struct Backwards {
    /// The end was passed on.
    done: bool,
}

impl Backwards {
    /// Copies as much as possible. Ready when the end was passed on.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut guest: &mut (impl AsyncWrite + Fill + Unpin),
        mut peer: &mut (impl AsyncRead + Unpin),
        inspector: &mut Inspector,
        count: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        while !self.done {
            let mut read = Poll::Pending;
            let filled = guest.poll_fill(context, |context, room| {
                let most = room.len().min(PIECE);
                let mut room = ReadBuf::new(&mut room[..most]);
                read = Pin::new(&mut peer).poll_read(context, &mut room);
                inspector.peer(room.filled());
                room.filled().len()
            });
            let filled = match ready!(filled) {
                Ok(filled) => filled,
                Err(error) => {
                    // What the guest has sent before may still be on its way to the peer. So the
                    // connection is cut only when the peer sends or ends.
                    let mut lost = [0];
                    let mut lost = ReadBuf::new(&mut lost);
                    ready!(Pin::new(&mut peer).poll_read(context, &mut lost))?;
                    return Poll::Ready(Err(error.into()));
                }
            };
            *count += filled as u64;
            ready!(read)?;
            if filled == 0 {
                ready!(Pin::new(&mut guest).poll_shutdown(context))?;
                self.done = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
