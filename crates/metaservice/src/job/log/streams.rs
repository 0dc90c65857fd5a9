//! What has come of each numbered log: without I/O.
//!
//! A request says where its bytes belong, and a cut one is sent again, perhaps while the host
//! still reads what the first connection has left. Whatever comes in whatever order, each byte
//! is let through once, and only behind the one before it.

use std::collections::BTreeMap;

use metaservice_protocol::ActionId;
use metaservice_protocol::limits::MAX_LOG_STREAMS;

/// Why bytes are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// Bytes before them have never come.
    Gap,
    /// There are too many numbered logs already.
    TooMany,
}

/// How far each log has come.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    received: BTreeMap<ActionId, u64>,
}

impl From<BTreeMap<ActionId, u64>> for Streams {
    /// Logs that have come so far.
    fn from(received: BTreeMap<ActionId, u64>) -> Self {
        Self { received }
    }
}

impl Streams {
    /// How many of `length` bytes at `offset` are known already; the others are new, and
    /// [`took`](Self::took) is to be told when they are safe.
    ///
    /// A log that is heard of for the first time begins wherever its first byte is: its sender
    /// was there before this host.
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
    pub(crate) fn took(&mut self, stream: &ActionId, end: u64) {
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
        /// A sender that goes back to any confirmed place, over connections whose last bytes may
        /// come late: the log is what was written.
        #[test]
        fn each_byte_comes_once_and_in_order(
            steps in prop::collection::vec((0usize..3, 1usize..40, 0usize..40), 1..120),
        ) {
            let stream = id("s");
            let written: Vec<u8> = (0..=255).cycle().take(2000).collect();
            let (mut streams, mut log) = (Streams::default(), Vec::new());
            let mut take = |offset: usize, bytes: &[u8], log: &mut Vec<u8>| {
                let known = streams.known(&stream, offset as u64, bytes.len());
                let Ok(known) = known else { return };
                log.extend_from_slice(&bytes[known..]);
                streams.took(&stream, (offset + bytes.len()) as u64);
            };
            // What a connection that is given up still holds: a place and a length.
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
                        // Cut: part of it is under way somewhere, and it is sent again from before.
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
        streams.took(&id("a"), 75);
        assert_eq!(streams.known(&id("a"), 70, 10), Ok(5));
        assert_eq!(streams.known(&id("a"), 0, 10), Ok(10));
        assert_eq!(streams.known(&id("a"), 76, 1), Err(Misplaced::Gap));
        // A late word of an old connection does not turn it back.
        streams.took(&id("a"), 3);
        assert_eq!(streams.known(&id("a"), 75, 1), Ok(0));
    }

    #[test]
    fn logs_are_bounded_in_number() {
        let mut streams = Streams::default();
        for n in 0..MAX_LOG_STREAMS {
            assert_eq!(streams.known(&id(&format!("s{n}")), 0, 1), Ok(0));
            streams.took(&id(&format!("s{n}")), 1);
        }
        assert_eq!(streams.known(&id("more"), 0, 1), Err(Misplaced::TooMany));
        assert_eq!(streams.known(&id("s0"), 1, 1), Ok(0));
    }
}
