//! The binary messages of a shell stream.

use bytes::{BufMut, Bytes, BytesMut};

use super::Dialect;

const DATA: u8 = 0;
const ACK: u8 = 1;
const SIZE: u8 = 3;
const ABORT: u8 = 4;
const EXIT: u8 = 5;
const SIGNAL: u8 = 6;

/// One of the three byte streams of a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Host to guest.
    Stdin,
    /// Guest to host.
    Stdout,
    /// Guest to host; with a terminal it only ends.
    Stderr,
}

impl Stream {
    /// All streams, in the order of their numbers on the wire.
    pub const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

    /// The stream's number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// One message of a shell stream.
///
/// ```
/// use bytes::Bytes;
/// use metaservice_protocol::shell::{Dialect, Frame, Stream};
///
/// let frame = Frame::Data { stream: Stream::Stdout, payload: Bytes::from_static(b"hi") };
/// assert_eq!(&frame.encode()[..], [0, 1, b'h', b'i']);
/// assert_eq!(Frame::decode(&frame.encode(), Dialect::V1).unwrap(), frame);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Payload of a stream; an empty payload is the stream's end.
    Data {
        /// Whose payload it is.
        stream: Stream,
        /// At most [`Dialect::block`] bytes from a peer that keeps the rules.
        payload: Bytes,
    },
    /// The reader of a stream has consumed more bytes.
    Ack {
        /// Whose bytes.
        stream: Stream,
        /// How many since the last acknowledgement.
        consumed: u32,
    },
    /// The terminal has a new size.
    Size {
        /// Characters in a row.
        columns: u16,
        /// Rows of characters.
        rows: u16,
    },
    /// The shell and everything under it is to be killed.
    Abort,
    /// The shell has ended.
    Exit {
        /// Whether with exit status 0.
        success: bool,
        /// Extension: JSON that says more, an [`Ending`](crate::Ending) or a
        /// [`Failure`](crate::Failure). Always empty in the first dialect.
        detail: Bytes,
    },
    /// Extension: a signal to the command.
    Signal(u8),
}

/// A message that the protocol tells a peer to ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFrame {
    /// The message has no byte at all.
    #[error("the message is empty")]
    Empty,
    /// The message is larger than [`Dialect::message`].
    #[error("the message has {0} bytes, more than any may have")]
    TooLong(usize),
    /// The first byte names no type of message.
    #[error("there is no message of type {0}")]
    UnknownType(u8),
    /// The stream byte names no stream.
    #[error("there is no stream {0}")]
    UnknownStream(u8),
    /// The message is longer or shorter than its type says.
    #[error("a message of type {kind} cannot have {length} bytes")]
    WrongLength {
        /// The message's type byte.
        kind: u8,
        /// The message's length in bytes.
        length: usize,
    },
}

impl Frame {
    /// Reads one message. A data payload is a slice of `message`, not a copy.
    ///
    /// # Errors
    /// [`InvalidFrame`] for a message that is to be ignored. An exit message with
    /// a byte other than 0 counts as failed.
    pub fn decode(message: &Bytes, dialect: Dialect) -> Result<Self, InvalidFrame> {
        let length = message.len();
        if length > dialect.message() {
            return Err(InvalidFrame::TooLong(length));
        }
        let Some(&kind) = message.first() else { return Err(InvalidFrame::Empty) };
        let wrong_length = InvalidFrame::WrongLength { kind, length };
        match (kind, &message[1..]) {
            (DATA, [stream, ..]) => {
                let stream = known(*stream)?;
                Ok(Self::Data { stream, payload: message.slice(2..) })
            }
            (ACK, [stream, a, b, c, d]) => {
                let consumed = u32::from_be_bytes([*a, *b, *c, *d]);
                Ok(Self::Ack { stream: known(*stream)?, consumed })
            }
            (SIZE, [a, b, c, d]) => Ok(Self::Size {
                columns: u16::from_be_bytes([*a, *b]),
                rows: u16::from_be_bytes([*c, *d]),
            }),
            (ABORT, []) => Ok(Self::Abort),
            (EXIT, [status, detail @ ..]) if detail.is_empty() || dialect == Dialect::V2 => {
                Ok(Self::Exit { success: *status == 0, detail: message.slice(2..) })
            }
            (SIGNAL, [number]) if dialect == Dialect::V2 => Ok(Self::Signal(*number)),
            (SIGNAL, _) if dialect == Dialect::V2 => Err(wrong_length),
            (DATA | ACK | SIZE | ABORT | EXIT, _) => Err(wrong_length),
            _ => Err(InvalidFrame::UnknownType(kind)),
        }
    }

    /// Writes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Data { stream, payload } => {
                let mut message = BytesMut::with_capacity(2 + payload.len());
                message.put_slice(&[DATA, stream.number()]);
                message.put_slice(payload);
                message.freeze()
            }
            Self::Ack { stream, consumed } => {
                let [a, b, c, d] = consumed.to_be_bytes();
                Bytes::copy_from_slice(&[ACK, stream.number(), a, b, c, d])
            }
            Self::Size { columns, rows } => {
                let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
                Bytes::copy_from_slice(&[SIZE, a, b, c, d])
            }
            Self::Abort => Bytes::from_static(&[ABORT]),
            Self::Exit { success, detail } => {
                let mut message = BytesMut::with_capacity(2 + detail.len());
                message.put_slice(&[EXIT, u8::from(!success)]);
                message.put_slice(detail);
                message.freeze()
            }
            Self::Signal(number) => Bytes::copy_from_slice(&[SIGNAL, *number]),
        }
    }
}

fn known(stream: u8) -> Result<Stream, InvalidFrame> {
    Stream::from_number(stream).ok_or(InvalidFrame::UnknownStream(stream))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{SHELL_BLOCK, SHELL_MESSAGE};

    pub(crate) fn stream() -> impl Strategy<Value = Stream> {
        prop_oneof![Just(Stream::Stdin), Just(Stream::Stdout), Just(Stream::Stderr)]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (stream(), proptest::collection::vec(any::<u8>(), 0..SHELL_BLOCK))
                .prop_map(|(stream, payload)| Frame::Data { stream, payload: payload.into() }),
            (stream(), any::<u32>()).prop_map(|(stream, consumed)| Frame::Ack { stream, consumed }),
            (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| Frame::Size { columns, rows }),
            Just(Frame::Abort),
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100))
                .prop_map(|(success, detail)| Frame::Exit { success, detail: detail.into() }),
            any::<u8>().prop_map(Frame::Signal),
        ]
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(frame in frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode(), Dialect::V2), Ok(frame));
        }

        #[test]
        fn what_decodes_encodes_to_itself(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let message = Bytes::from(message);
            for dialect in [Dialect::V1, Dialect::V2] {
                if let Ok(frame) = Frame::decode(&message, dialect) {
                    // The one freedom of the wire: any non-zero exit status means failed.
                    let canonical = !matches!(frame, Frame::Exit { success: false, .. });
                    prop_assert!(!canonical || frame.encode() == message);
                }
            }
        }
    }

    #[test]
    fn messages_of_the_protocol_page() {
        let decode = |bytes: &'static [u8]| Frame::decode(&Bytes::from_static(bytes), Dialect::V1);
        assert_eq!(decode(&[4]), Ok(Frame::Abort));
        assert_eq!(decode(&[5, 0]), Ok(Frame::Exit { success: true, detail: Bytes::new() }));
        assert_eq!(decode(&[3, 0, 80, 0, 24]), Ok(Frame::Size { columns: 80, rows: 24 }));
        assert_eq!(
            decode(&[1, 2, 0, 0, 1, 0]),
            Ok(Frame::Ack { stream: Stream::Stderr, consumed: 256 })
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let decode = |bytes: &'static [u8]| {
            Frame::decode(&Bytes::from_static(bytes), Dialect::V1).unwrap_err()
        };
        assert_eq!(decode(&[]), InvalidFrame::Empty);
        assert_eq!(decode(&[2, 0]), InvalidFrame::UnknownType(2));
        assert_eq!(decode(&[0]), InvalidFrame::WrongLength { kind: 0, length: 1 });
        assert_eq!(decode(&[0, 3]), InvalidFrame::UnknownStream(3));
        assert_eq!(decode(&[1, 0, 0, 0, 1]), InvalidFrame::WrongLength { kind: 1, length: 5 });
        assert_eq!(decode(&[4, 0]), InvalidFrame::WrongLength { kind: 4, length: 2 });
        // What the second dialect has and the first has not.
        assert_eq!(decode(&[6, 15]), InvalidFrame::UnknownType(6));
        assert_eq!(decode(&[5, 0, b'{']), InvalidFrame::WrongLength { kind: 5, length: 3 });
        let long = Bytes::from(vec![0; SHELL_MESSAGE + 1]);
        assert_eq!(
            Frame::decode(&long, Dialect::V1),
            Err(InvalidFrame::TooLong(SHELL_MESSAGE + 1))
        );
        assert!(Frame::decode(&Bytes::from(vec![0; SHELL_MESSAGE]), Dialect::V1).is_ok());
    }
}
