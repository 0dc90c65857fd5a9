//! Copies a connection both ways.
//!
//! ```text
//!   guest ──► buffer ──► inspector ──► peer       the end of one direction is passed on,
//!   guest ◄── buffer ◄─────────────── peer        and the other one continues
//! ```
//!
//! A direction reads only when everything that may pass was written. So a slow reader holds its
//! writer back, and a connection has at most one buffer for each direction. One that waits has
//! none.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::inspect::{Inspector, WrongName};

/// The size of a buffer, in bytes.
const BUFFER: usize = 64 << 10;

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
    G: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
{
    let (mut outwards, mut backwards) =
        (Direction::new(Source::Guest), Direction::new(Source::Peer));
    let result = poll_fn(|context| {
        let mut out = outwards.poll(context, guest, peer, &mut inspector, sent)?;
        let waited = inspector.awaits_peer();
        let back = backwards.poll(context, peer, guest, &mut inspector, received)?;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Guest,
    Peer,
}

/// One direction of a connection.
#[derive(Debug)]
struct Direction {
    source: Source,
    buffer: Vec<u8>,
    /// How many bytes of the buffer may pass, and how many of them were written.
    allowed: usize,
    written: usize,
    /// The source sends no more.
    ended: bool,
    /// The end was passed on.
    done: bool,
}

impl Direction {
    fn new(source: Source) -> Self {
        Self { source, buffer: Vec::new(), allowed: 0, written: 0, ended: false, done: false }
    }

    /// Copies as much as possible. Ready when the end was passed on.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        mut to: &mut (impl AsyncWrite + Unpin),
        inspector: &mut Inspector,
        count: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        while !self.done {
            while self.written < self.allowed {
                let bytes = &self.buffer[self.written..self.allowed];
                let wrote = ready!(Pin::new(&mut to).poll_write(context, bytes))?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                self.written += wrote;
                *count += wrote as u64;
            }
            self.buffer.drain(..std::mem::take(&mut self.written));
            self.allowed = self.check(inspector)?;
            if self.allowed > 0 {
                continue;
            }
            if self.ended {
                // A part of a message that cannot be checked any more.
                if !self.buffer.is_empty() {
                    return Poll::Ready(Err(Broken::WrongName));
                }
                ready!(Pin::new(&mut to).poll_shutdown(context))?;
                self.done = true;
                break;
            }
            if self.source == Source::Guest && inspector.awaits_peer() {
                return Poll::Pending;
            }
            self.ended = ready!(self.poll_read(context, from))? == 0;
            if self.source == Source::Peer {
                inspector.peer(&self.buffer);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes from the front of the buffer may pass.
    fn check(&self, inspector: &mut Inspector) -> Result<usize, WrongName> {
        match self.source {
            Source::Guest if !self.buffer.is_empty() => inspector.guest(&self.buffer),
            _ => Ok(self.buffer.len()),
        }
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        // A head of a request can fill a whole buffer.
        self.buffer.reserve(BUFFER);
        let read = pin!(from.read_buf(&mut self.buffer)).poll(context);
        if read.is_pending() {
            self.buffer.shrink_to_fit();
        }
        read
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
