//! The sockets of ended connections, which the next ones use again.
//!
//! A new buffer is cleared before its first use. For a short connection, this takes longer than
//! everything else that the card does. A socket that is used again still has bytes of the same
//! guest in its buffers. None of them is read or sent.
//!
//! It owns the limit on what is kept.

use std::collections::VecDeque;

use smoltcp::socket::tcp::Socket;

use super::budget::Grant;

/// The most bytes of buffers that are kept.
pub(super) const MOST: usize = 8 << 20;

/// The sockets that are kept, oldest first.
#[derive(Default)]
pub(super) struct Spares {
    sockets: VecDeque<(Grant, Socket<'static>)>,
    bytes: usize,
}

impl Spares {
    /// Keeps the socket of an ended connection, and drops the oldest ones for which there is no
    /// room then.
    pub(super) fn put(&mut self, grant: Grant, mut socket: Socket<'static>) {
        // A closed socket can listen or connect, and forgets its connection then.
        socket.abort();
        self.bytes += grant.total();
        self.sockets.push_back((grant, socket));
        while self.bytes > MOST
            && let Some((dropped, _)) = self.sockets.pop_front()
        {
            self.bytes -= dropped.total();
        }
    }

    /// A socket with buffers of exactly these sizes: the last one, whose buffers are most likely in
    /// the processor's cache.
    pub(super) fn take(&mut self, grant: Grant) -> Option<Socket<'static>> {
        let index = self.sockets.iter().rposition(|(kept, _)| *kept == grant)?;
        let (_, socket) = self.sockets.remove(index)?;
        self.bytes -= grant.total();
        Some(socket)
    }

    /// The bytes of the buffers that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::socket::tcp::SocketBuffer;

    use super::*;

    fn socket(grant: Grant) -> Socket<'static> {
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        Socket::new(buffer(grant.receive), buffer(grant.send))
    }

    #[test]
    fn the_same_sizes_are_used_again_and_the_rest_is_limited() {
        let (small, large) =
            (Grant { receive: 100, send: 28 }, Grant { receive: MOST / 2, send: MOST / 4 });
        let mut spares = Spares::default();
        assert!(spares.take(small).is_none());
        spares.put(small, socket(small));
        assert!(spares.take(Grant { send: 29, ..small }).is_none());
        assert!(spares.take(small).is_some_and(|socket| socket.recv_capacity() == 100));
        assert!(spares.take(small).is_none() && spares.bytes() == 0);
        spares.put(small, socket(small));
        spares.put(large, socket(large));
        assert_eq!(spares.bytes(), small.total() + large.total());
        spares.put(large, socket(large));
        assert_eq!(spares.bytes(), large.total(), "the oldest ones are dropped");
        let huge = Grant { receive: MOST, send: 1 };
        spares.put(huge, socket(huge));
        assert_eq!(spares.bytes(), 0, "one that is too large is not kept");
    }
}
