//! The stream to QEMU (`-netdev stream`): in both directions, each Ethernet frame follows its
//! length in four bytes, big-endian.
//!
//! Owns the parser of the stream ([`Splitter`]) and the queue of outgoing frames ([`Outgoing`]),
//! both with a fixed size. It does not look into frames, and does no I/O.

/// The length of a length prefix.
pub const PREFIX: usize = 4;

/// The length of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// The longest possible frame: the longest IPv4 packet in an Ethernet header with a VLAN tag. A
/// greater length means that the stream is out of step.
pub const MAX_FRAME: usize = ETHERNET_HEADER + 4 + 65535;

/// The stream from QEMU is out of step: no frame has this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes was announced; the longest has {MAX_FRAME}")]
pub struct FramingError {
    /// The length in the prefix.
    pub length: u32,
}

/// Splits a stream of bytes into frames.
///
/// Read into [`unfilled`](Self::unfilled), call [`filled`](Self::filled) with the count, and take
/// frames by [`next_frame`](Self::next_frame) until there is none. Frames are slices of the buffer,
/// not copies.
///
/// ```
/// use metaservice_nic::frame::Splitter;
///
/// let mut splitter = Splitter::new();
/// splitter.unfilled()[..7].copy_from_slice(&[0, 0, 0, 2, b'h', b'i', 0]);
/// splitter.filled(7);
/// assert_eq!(splitter.next_frame(), Ok(Some(&b"hi"[..])));
/// assert_eq!(splitter.next_frame(), Ok(None));
/// ```
#[derive(Debug)]
pub struct Splitter {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Splitter {
    /// The size of the buffer in bytes. It holds several jumbo frames, and more than the default
    /// buffer of a Unix socket.
    pub const CAPACITY: usize = 256 * 1024;

    /// An empty splitter.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; Self::CAPACITY].into(), start: 0, end: 0 }
    }

    /// The free part of the buffer. It is not empty after `next_frame` has returned `None`: the
    /// rest of an incomplete frame fits.
    pub fn unfilled(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// Adds the first `count` bytes of [`unfilled`](Self::unfilled).
    ///
    /// # Panics
    /// If `count` is larger than the free part.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "{count} bytes are more than there is room");
        self.end += count;
    }

    /// The next complete frame, if there is one.
    ///
    /// # Errors
    /// [`FramingError`] if the stream is out of step, and for each call after that.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let unread = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        let length = match usize::try_from(length) {
            Ok(length) if length <= MAX_FRAME => length,
            _ => return Err(FramingError { length }),
        };
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        self.start += PREFIX + length;
        Ok(Some(frame))
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

/// Frames for QEMU, each with its length prefix, in one buffer with a fixed size.
///
/// TCP stops sending when the buffer [is full](Self::is_full), so it loses nothing. Beyond that
/// there is a margin for replies that cannot wait (ARP, DHCP, ICMP, resets). If a guest sends
/// requests and does not read the replies, it loses some of these.
///
/// ```
/// use metaservice_nic::frame::Outgoing;
///
/// let mut outgoing = Outgoing::new();
/// outgoing.push(2, |frame| frame.copy_from_slice(b"hi"));
/// assert_eq!(outgoing.unsent(), [0, 0, 0, 2, b'h', b'i']);
/// outgoing.sent(6);
/// assert!(outgoing.unsent().is_empty());
/// ```
#[derive(Debug)]
pub struct Outgoing {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    frames: u64,
    bytes: u64,
    refused: u64,
}

impl Outgoing {
    /// The number of bytes at which it is full. It is enough for one large write, and small enough
    /// that one bulk stream does not delay the others.
    pub const FULL: usize = 512 * 1024;

    /// The room for replies beyond [`FULL`](Self::FULL), in addition to the frame that crossed it.
    pub const MARGIN: usize = 128 * 1024;

    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        let capacity = Self::FULL + PREFIX + MAX_FRAME + Self::MARGIN;
        Self { buffer: vec![0; capacity].into(), start: 0, end: 0, frames: 0, bytes: 0, refused: 0 }
    }

    /// Whether TCP must wait until something is sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end >= Self::FULL
    }

    /// The bytes to write.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Removes the first `count` [unsent](Self::unsent) bytes, which were written.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} bytes are more than there are");
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends a frame with `length` bytes, which `fill` writes. If there is no room, `fill` gets
    /// another buffer, and the frame counts as [refused](Self::refused).
    pub fn push<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
        let begin = self.end + PREFIX;
        let (Some(prefix), true) = (prefix, begin + length <= self.buffer.len()) else {
            self.refused += 1;
            return fill(&mut vec![0; length]);
        };
        self.buffer[self.end..begin].copy_from_slice(&prefix.to_be_bytes());
        self.end = begin + length;
        self.frames += 1;
        self.bytes += u64::from(prefix);
        fill(&mut self.buffer[begin..begin + length])
    }

    /// The position of the next frame, for [`frames_since`](Self::frames_since). It is valid until
    /// [`sent`](Self::sent) is called.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.end
    }

    /// The frames that were pushed since `mark`, without their prefixes.
    pub fn frames_since(&self, mark: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.buffer[mark.min(self.end)..self.end];
        std::iter::from_fn(move || {
            let (prefix, after) = rest.split_first_chunk::<PREFIX>()?;
            let length = usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
            let (frame, after) = after.split_at_checked(length)?;
            rest = after;
            Some(frame)
        })
    }

    /// The number of frames that were pushed.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Their bytes, without prefixes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of frames for which there was no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces with these sizes. The last size repeats.
    fn split(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut splitter = Splitter::new();
        let (mut frames, mut fed, mut piece) = (Vec::new(), 0, 0);
        while fed < bytes.len() {
            let size = pieces[piece.min(pieces.len() - 1)].max(1);
            piece += 1;
            let room = splitter.unfilled();
            let count = size.min(room.len()).min(bytes.len() - fed);
            assert!(count > 0, "the splitter is stuck");
            room[..count].copy_from_slice(&bytes[fed..fed + count]);
            splitter.filled(count);
            fed += count;
            while let Some(frame) = splitter.next_frame()? {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_do_not_depend_on_how_they_are_read(
            lengths in proptest::collection::vec(prop_oneof![0usize..80, 60_000..=MAX_FRAME], 0..12),
            pieces in proptest::collection::vec(1usize..100_000, 1..20),
        ) {
            let mut outgoing = Vec::new();
            let mut expected = Vec::new();
            for (number, length) in lengths.into_iter().enumerate() {
                let frame: Vec<u8> = (0..=250).cycle().skip(number).take(length).collect();
                outgoing.extend(u32::try_from(length).unwrap().to_be_bytes());
                outgoing.extend(&frame);
                expected.push(frame);
            }
            prop_assert_eq!(split(&outgoing, &pieces).unwrap(), expected);
        }

        #[test]
        fn what_is_pushed_is_what_is_split(lengths in proptest::collection::vec(0usize..2000, 0..50)) {
            let mut outgoing = Outgoing::new();
            for &length in &lengths {
                outgoing.push(length, |frame| frame.fill(7));
            }
            let frames = split(outgoing.unsent(), &[1000]).unwrap();
            let sent: Vec<usize> = frames.iter().map(Vec::len).collect();
            prop_assert_eq!(&sent, &lengths);
            let listed: Vec<usize> = outgoing.frames_since(0).map(<[u8]>::len).collect();
            prop_assert_eq!(&listed, &lengths);
        }
    }

    #[test]
    fn every_boundary_of_a_short_stream() {
        let bytes = [0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        for cut in 1..bytes.len() {
            let frames = split(&bytes, &[cut, bytes.len()]).unwrap();
            assert_eq!(frames, [vec![1, 2, 3], vec![], vec![9]], "cut at {cut}");
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_an_error_for_good() {
        let mut splitter = Splitter::new();
        let length = u32::try_from(MAX_FRAME + 1).unwrap();
        splitter.unfilled()[..4].copy_from_slice(&length.to_be_bytes());
        splitter.filled(4);
        assert_eq!(splitter.next_frame(), Err(FramingError { length }));
        assert_eq!(splitter.next_frame(), Err(FramingError { length }));
        assert_eq!(split(&[0xff; 8], &[8]), Err(FramingError { length: u32::MAX }));
    }

    #[test]
    fn the_queue_is_bounded_and_says_so() {
        let mut outgoing = Outgoing::new();
        let mut pushed = 0;
        while outgoing.refused() == 0 {
            outgoing.push(1500, |_| ());
            pushed += 1;
        }
        assert!(outgoing.is_full());
        assert!(outgoing.unsent().len() < Outgoing::FULL + Outgoing::MARGIN + 2 * MAX_FRAME);
        assert_eq!(outgoing.frames(), pushed - 1);
        outgoing.sent(outgoing.unsent().len());
        assert!(!outgoing.is_full());
        outgoing.push(1500, |_| ());
        assert_eq!(outgoing.refused(), 1);
    }
}
