//! Flow control of one stream: how much may be on its way.

/// The sender's view: bytes sent and not yet acknowledged.
///
/// ```
/// use metaservice_protocol::shell::SendWindow;
///
/// let mut window = SendWindow::new(10);
/// window.sent(8);
/// assert_eq!(window.room(), 2);
/// window.acknowledged(5);
/// assert_eq!(window.room(), 7);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendWindow {
    limit: usize,
    in_flight: usize,
}

impl SendWindow {
    /// A window of `limit` bytes with nothing in flight.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, in_flight: 0 }
    }

    /// How many bytes may be sent now.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.limit - self.in_flight
    }

    /// Bytes sent and not yet acknowledged.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Notes that `count` bytes are on their way.
    ///
    /// # Panics
    /// When `count` is more than [`room`](Self::room): the caller's own mistake.
    pub fn sent(&mut self, count: usize) {
        assert!(
            count <= self.room(),
            "sent {count} bytes into a window with room for {}",
            self.room()
        );
        self.in_flight += count;
    }

    /// Notes the peer's acknowledgement. A peer that acknowledges more than is in
    /// flight gains nothing by it.
    pub fn acknowledged(&mut self, count: u32) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.in_flight = self.in_flight.saturating_sub(count);
    }
}

/// The receiver's view: bytes received and not yet consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveWindow {
    limit: usize,
    held: usize,
}

/// The peer has sent more than its window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{received} bytes came in with room for {room}")]
pub struct WindowExceeded {
    /// How many bytes came.
    pub received: usize,
    /// How many were allowed.
    pub room: usize,
}

impl ReceiveWindow {
    /// A window of `limit` bytes with nothing held.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, held: 0 }
    }

    /// Bytes received and not yet consumed.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Notes bytes that came in.
    ///
    /// # Errors
    /// [`WindowExceeded`] when the peer ignores flow control; nothing is noted then.
    pub fn received(&mut self, count: usize) -> Result<(), WindowExceeded> {
        let room = self.limit - self.held;
        if count > room {
            return Err(WindowExceeded { received: count, room });
        }
        self.held += count;
        Ok(())
    }

    /// Notes that the reader has taken `count` bytes, and says how many the peer is
    /// to be told: never more than it sent.
    pub fn consumed(&mut self, count: usize) -> u32 {
        let count = count.min(self.held);
        self.held -= count;
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pair_never_exceeds_its_limit(
            limit in 1usize..1000,
            steps in proptest::collection::vec((any::<bool>(), 0usize..1200), 0..200),
        ) {
            let (mut sender, mut receiver) = (SendWindow::new(limit), ReceiveWindow::new(limit));
            for (send, amount) in steps {
                if send {
                    let count = amount.min(sender.room());
                    sender.sent(count);
                    prop_assert_eq!(receiver.received(count), Ok(()));
                } else {
                    sender.acknowledged(receiver.consumed(amount));
                }
                prop_assert_eq!(sender.in_flight(), receiver.held());
                prop_assert!(sender.in_flight() <= limit);
            }
        }
    }

    #[test]
    fn the_bound_and_one_past_it() {
        let mut window = ReceiveWindow::new(4);
        assert_eq!(window.received(4), Ok(()));
        assert_eq!(window.received(1), Err(WindowExceeded { received: 1, room: 0 }));
        assert_eq!(window.consumed(9), 4);
        assert_eq!(window.received(4), Ok(()));
    }

    #[test]
    fn forged_acknowledgements_open_no_more_than_the_limit() {
        let mut window = SendWindow::new(4);
        window.sent(3);
        window.acknowledged(u32::MAX);
        assert_eq!(window.room(), 4);
    }
}
