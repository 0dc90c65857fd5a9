//! How much of each numbered log was received. It does no I/O.
//!
//! A request states the offset of its bytes. If it is cut, the guest sends it again, perhaps while
//! the host still reads the rest of the first connection. In any order of arrival, each byte is
//! accepted once, and only after the byte before it.

use std::collections::BTreeMap;

use metaservice_protocol::ActionId;
use metaservice_protocol::limits::MAX_LOG_STREAMS;

/// Why bytes are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// Bytes before them were never received.
    Gap,
    /// There are too many numbered logs already.
    TooMany,
}

/// How much of each log was received.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    received: BTreeMap<ActionId, u64>,
}

impl From<BTreeMap<ActionId, u64>> for Streams {
    /// Logs of which this much was received before.
    fn from(received: BTreeMap<ActionId, u64>) -> Self {
        Self { received }
    }
}

impl Streams {
    /// How many of `length` bytes at `offset` were received before. The others are new: call
    /// [`received`](Self::received) when they are safe.
    ///
    /// A new log may begin at any offset: its sender may be older than this host.
    pub(crate) fn known(
        &self,
        stream: &ActionId,
        offset: u64,
        length: usize,
    ) -> Result<usize, Misplaced> {
        match self.received.get(stream) {
            Some(received) if offset > *received => Err(Misplaced::Gap),
            Some(received) => Ok(usize::try_from(received - offset).unwrap_or(length).min(length)),
            None if self.received.len() >= MAX_LOG_STREAMS => Err(Misplaced::TooMany),
            None => Ok(0),
        }
    }

    /// All bytes of the log before `end` are safe.
    pub(crate) fn received(&mut self, stream: &ActionId, end: u64) {
        match self.received.get_mut(stream) {
            Some(received) => *received = end.max(*received),
            None => drop(self.received.insert(stream.clone(), end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> ActionId {
        ActionId::parse(text).unwrap()
    }

    proptest! {
        /// The sender goes back to any confirmed place, and the last bytes of a cut connection may
        /// arrive late. The log is what was written.
        #[test]
        fn each_byte_passes_once_and_in_order(
            steps in prop::collection::vec((0usize..3, 1usize..40, 0usize..40), 1..120),
        ) {
            let stream = id("s");
            let written: Vec<u8> = (0..=255).cycle().take(2000).collect();
            let (mut streams, mut log) = (Streams::default(), Vec::new());
            let mut take = |offset: usize, bytes: &[u8], log: &mut Vec<u8>| {
                let known = streams.known(&stream, offset as u64, bytes.len());
                let Ok(known) = known else { return };
                log.extend_from_slice(&bytes[known..]);
                streams.received(&stream, (offset + bytes.len()) as u64);
            };
            // What an abandoned connection still holds: offset and length.
            let mut late: Vec<(usize, usize)> = Vec::new();
            let mut sent = 0;
            for (step, length, back) in steps {
                let length = length.min(written.len() - sent);
                match step {
                    0 => {
                        take(sent, &written[sent..sent + length], &mut log);
                        sent += length;
                    }
                    1 => {
                        // A cut: these bytes may arrive late, and are sent again.
                        late.push((sent, length));
                        sent = sent.saturating_sub(back).min(log.len());
                    }
                    _ => {
                        if let Some((offset, length)) = late.pop() {
                            take(offset, &written[offset..offset + length], &mut log);
                        }
                    }
                }
            }
            prop_assert_eq!(&log[..], &written[..log.len()]);
        }
    }

    #[test]
    fn a_gap_is_refused_and_a_log_may_begin_in_its_middle() {
        let mut streams = Streams::default();
        assert_eq!(streams.known(&id("a"), 70, 5), Ok(0));
        streams.received(&id("a"), 75);
        assert_eq!(streams.known(&id("a"), 70, 10), Ok(5));
        assert_eq!(streams.known(&id("a"), 0, 10), Ok(10));
        assert_eq!(streams.known(&id("a"), 76, 1), Err(Misplaced::Gap));
        // Late bytes of an old connection do not move it back.
        streams.received(&id("a"), 3);
        assert_eq!(streams.known(&id("a"), 75, 1), Ok(0));
    }

    #[test]
    fn the_number_of_logs_is_limited() {
        let mut streams = Streams::default();
        for n in 0..MAX_LOG_STREAMS {
            assert_eq!(streams.known(&id(&format!("s{n}")), 0, 1), Ok(0));
            streams.received(&id(&format!("s{n}")), 1);
        }
        assert_eq!(streams.known(&id("more"), 0, 1), Err(Misplaced::TooMany));
        assert_eq!(streams.known(&id("s0"), 1, 1), Ok(0));
    }
}
