//! Flow control of one stream: how many bytes may be in flight.

/// The sender's view: bytes that were sent and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SendWindow {
    limit: usize,
    in_flight: usize,
}

impl SendWindow {
    /// A window of `limit` bytes with nothing in flight.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, in_flight: 0 }
    }

    /// How many bytes may be sent.
    pub(super) const fn room(&self) -> usize {
        self.limit - self.in_flight
    }

    /// The number of bytes that were sent and not acknowledged.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Counts bytes that were sent.
    ///
    /// # Panics
    /// If `count` is more than [`room`](Self::room): a bug of the caller.
    pub(super) fn sent(&mut self, count: usize) {
        assert!(
            count <= self.room(),
            "sent {count} bytes into a window with room for {}",
            self.room()
        );
        self.in_flight += count;
    }

    /// Counts bytes that the peer acknowledged. More than are in flight count as all of them.
    pub(super) fn acknowledged(&mut self, count: u32) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.in_flight = self.in_flight.saturating_sub(count);
    }
}

/// The receiver's view: bytes that were received and not consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    limit: usize,
    held: usize,
}

/// The peer has sent more than its window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent {received} bytes, and the window had room for {room}")]
#[non_exhaustive]
pub struct WindowExceeded {
    /// How many bytes the peer sent.
    pub received: usize,
    /// How many bytes were allowed.
    pub room: usize,
}

impl ReceiveWindow {
    /// A window of `limit` bytes with nothing held.
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, held: 0 }
    }

    /// The number of bytes that were received and not consumed.
    #[cfg(test)]
    const fn held(&self) -> usize {
        self.held
    }

    /// Counts bytes that were received.
    ///
    /// # Errors
    /// [`WindowExceeded`] if the peer ignores flow control. Then nothing is counted.
    pub(super) fn received(&mut self, count: usize) -> Result<(), WindowExceeded> {
        let room = self.limit - self.held;
        if count > room {
            return Err(WindowExceeded { received: count, room });
        }
        self.held += count;
        Ok(())
    }

    /// Counts bytes that the reader consumed. Returns how many bytes to acknowledge: never more
    /// than the peer sent.
    pub(super) fn consumed(&mut self, count: usize) -> u32 {
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
    fn a_receiver_accepts_a_full_window_and_not_one_byte_more() {
        let mut window = ReceiveWindow::new(4);
        assert_eq!(window.received(4), Ok(()));
        assert_eq!(window.received(1), Err(WindowExceeded { received: 1, room: 0 }));
        assert_eq!(window.consumed(9), 4);
        assert_eq!(window.received(4), Ok(()));
    }

    #[test]
    fn an_acknowledgement_of_too_many_bytes_opens_no_more_than_the_window() {
        let mut window = SendWindow::new(4);
        window.sent(3);
        window.acknowledged(u32::MAX);
        assert_eq!(window.room(), 4);
    }
}
