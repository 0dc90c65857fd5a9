//! The frames of a log that says which output its bytes are of, and when they arrived.
//!
//! ```text
//!   byte 0       1 for stdout, 2 for stderr; others are to come, and can be skipped
//!   bytes 1..9   time of arrival in milliseconds since 1970, big-endian; 0 if it is not known
//!   bytes 9..13  length of the content, big-endian, at most MAX_CONTENT
//!   then         the content
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use metaservice_protocol::LogOutput;

use crate::LogSegment;

/// The content type of a log in frames.
pub const FRAMES_TYPE: &str = "application/vnd.metaservice.log";

/// The largest content of a frame, in bytes.
pub const MAX_CONTENT: usize = 1024 * 1024;

/// The length of what comes before the content.
const HEAD: usize = 13;

/// Bytes that are not the frames of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has a frame of {0} bytes")]
pub struct InvalidFrame(u32);

/// A segment of a log: for tests, and for logs from elsewhere.
#[must_use]
pub fn segment(output: LogOutput, time: Option<SystemTime>, bytes: Bytes) -> LogSegment {
    LogSegment::new(output, time, bytes)
}

/// The frames of a segment: one, or more if it is longer than [`MAX_CONTENT`].
#[must_use]
pub fn encode(segment: &LogSegment) -> Vec<u8> {
    let since = segment.time.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
    let time = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let output = if segment.output == LogOutput::Stdout { 1 } else { 2 };
    let mut frames = Vec::with_capacity(HEAD + segment.bytes.len());
    for content in segment.bytes.chunks(MAX_CONTENT) {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        frames.push(output);
        frames.extend_from_slice(&time.to_be_bytes());
        frames.extend_from_slice(&length.to_be_bytes());
        frames.extend_from_slice(content);
    }
    frames
}

/// Reads frames from bytes that arrive in pieces of any length.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: BytesMut,
}

impl FrameReader {
    /// Adds the next bytes.
    #[expect(clippy::needless_pass_by_value, reason = "a receiver has no other use for them")]
    pub fn push(&mut self, bytes: Bytes) {
        self.bytes.extend_from_slice(&bytes);
    }

    /// Whether the bytes end within a frame.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next segment; `None` if it has not arrived. Frames of other kinds are skipped.
    ///
    /// # Errors
    /// A frame is longer than [`MAX_CONTENT`].
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<LogSegment>, InvalidFrame> {
        loop {
            let Some(mut head) = self.bytes.get(..HEAD) else { return Ok(None) };
            let (kind, time, length) = (head.get_u8(), head.get_u64(), head.get_u32());
            let content = usize::try_from(length).unwrap_or(usize::MAX);
            if content > MAX_CONTENT {
                return Err(InvalidFrame(length));
            }
            if self.bytes.len() < HEAD + content {
                return Ok(None);
            }
            self.bytes.advance(HEAD);
            let bytes = self.bytes.split_to(content).freeze();
            let output = match kind {
                1 => LogOutput::Stdout,
                2 => LogOutput::Stderr,
                _ => continue,
            };
            let time = UNIX_EPOCH.checked_add(Duration::from_millis(time)).filter(|_| time > 0);
            return Ok(Some(LogSegment::new(output, time, bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_are_read_as_they_were_written(
            segments in prop::collection::vec(
                (any::<bool>(), 0u64..1 << 40, prop::collection::vec(any::<u8>(), 1..40)), 0..10,
            ),
            pieces in 1usize..30,
        ) {
            let made: Vec<LogSegment> = segments
                .into_iter()
                .map(|(stderr, time, bytes)| {
                    let time = (time > 0).then(|| UNIX_EPOCH + Duration::from_millis(time));
                    segment(LogOutput::ALL[usize::from(stderr)], time, bytes.into())
                })
                .collect();
            let bytes: Vec<u8> = made.iter().flat_map(encode).collect();
            let (mut reader, mut read) = (FrameReader::default(), Vec::new());
            for piece in bytes.chunks(pieces) {
                reader.push(Bytes::copy_from_slice(piece));
                while let Some(segment) = reader.next().unwrap() {
                    read.push(segment);
                }
            }
            prop_assert!(!reader.is_within());
            prop_assert_eq!(read, made);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = FrameReader::default();
            reader.push(bytes.into());
            while let Ok(Some(segment)) = reader.next() {
                prop_assert!(segment.bytes.len() < 400);
            }
        }
    }

    #[test]
    fn a_large_segment_is_more_than_one_frame_and_other_kinds_are_skipped() {
        let large = segment(LogOutput::Stderr, None, vec![7; MAX_CONTENT + 1].into());
        let mut reader = FrameReader::default();
        reader.push(
            [&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 42][..], &encode(&large)].concat().into(),
        );
        assert_eq!(reader.next().unwrap().unwrap().bytes.len(), MAX_CONTENT);
        assert_eq!(reader.next().unwrap().unwrap().bytes.len(), 1);
        reader.push(Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0]));
        assert_eq!(reader.next(), Err(InvalidFrame(0xff00_0000)));
    }
}
