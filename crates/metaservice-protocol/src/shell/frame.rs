//! The encoding of the messages of a shell stream. Their order is not checked here.

use bytes::{BufMut, Bytes, BytesMut};

use super::StreamProtocol;

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
    /// Guest to host. With a terminal, it carries no bytes.
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
/// use metaservice_protocol::shell::{Frame, Stream, StreamProtocol};
///
/// let frame = Frame::Data { stream: Stream::Stdout, payload: Bytes::from_static(b"hi") };
/// assert_eq!(&frame.encode()[..], [0, 1, b'h', b'i']);
/// assert_eq!(Frame::decode(&frame.encode(), StreamProtocol::V1).unwrap(), frame);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Payload of a stream. An empty payload is the end of the stream.
    Data {
        /// The stream.
        stream: Stream,
        /// A peer that follows the protocol sends at most [`StreamProtocol::block`] bytes.
        payload: Bytes,
    },
    /// The reader of a stream has consumed more bytes.
    Ack {
        /// The stream.
        stream: Stream,
        /// The number of bytes since the last acknowledgement.
        consumed: u32,
    },
    /// The size of the terminal has changed.
    Size {
        /// Characters in a row.
        columns: u16,
        /// Rows of characters.
        rows: u16,
    },
    /// The agent must kill the command and its descendants.
    Abort,
    /// The command has ended.
    Exit {
        /// Whether its exit status is 0.
        success: bool,
        /// Extension: an [`Ending`](crate::Ending) or a [`Failure`](crate::Failure) as JSON. Always
        /// empty in version 1.
        detail: Bytes,
    },
    /// Extension: the agent must send this signal to the command.
    Signal(u8),
}

/// A message that a peer ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The message is empty.
    #[error("the message is empty")]
    Empty,
    /// The message is larger than [`StreamProtocol::message`].
    #[error("the message has {0} bytes, which is too many")]
    TooLong(usize),
    /// The first byte is not a message type.
    #[error("there is no message of type {0}")]
    UnknownType(u8),
    /// The stream byte is not a stream.
    #[error("there is no stream {0}")]
    UnknownStream(u8),
    /// The message is too long or too short for its type.
    #[error("a message of type {kind} cannot have {length} bytes")]
    WrongLength {
        /// The message's type byte.
        kind: u8,
        /// The message's length in bytes.
        length: usize,
    },
}

impl Frame {
    /// Reads one message. A data payload is a slice of `message`, not a copy. Each exit status
    /// except 0 counts as failed.
    ///
    /// # Errors
    /// [`InvalidFrame`] for a message that the peer must ignore.
    pub fn decode(message: &Bytes, protocol: StreamProtocol) -> Result<Self, InvalidFrame> {
        let length = message.len();
        if length > protocol.message() {
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
            (EXIT, [status, detail @ ..])
                if detail.is_empty() || protocol == StreamProtocol::V2 =>
            {
                Ok(Self::Exit { success: *status == 0, detail: message.slice(2..) })
            }
            (SIGNAL, [number]) if protocol == StreamProtocol::V2 => Ok(Self::Signal(*number)),
            (SIGNAL, _) if protocol == StreamProtocol::V2 => Err(wrong_length),
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
        fn any_frame_is_read_as_it_was_written(frame in frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode(), StreamProtocol::V2), Ok(frame));
        }

        #[test]
        fn a_message_that_decodes_encodes_to_itself(
            message in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let message = Bytes::from(message);
            for protocol in [StreamProtocol::V1, StreamProtocol::V2] {
                if let Ok(frame) = Frame::decode(&message, protocol) {
                    // Several messages decode to a failed exit: each exit status except 0.
                    let canonical = !matches!(frame, Frame::Exit { success: false, .. });
                    prop_assert!(!canonical || frame.encode() == message);
                }
            }
        }
    }

    #[test]
    fn messages_of_the_protocol_page() {
        let decode =
            |bytes: &'static [u8]| Frame::decode(&Bytes::from_static(bytes), StreamProtocol::V1);
        assert_eq!(decode(&[4]), Ok(Frame::Abort));
        assert_eq!(decode(&[5, 0]), Ok(Frame::Exit { success: true, detail: Bytes::new() }));
        assert_eq!(decode(&[3, 0, 80, 0, 24]), Ok(Frame::Size { columns: 80, rows: 24 }));
        assert_eq!(
            decode(&[1, 2, 0, 0, 1, 0]),
            Ok(Frame::Ack { stream: Stream::Stderr, consumed: 256 })
        );
    }

    #[test]
    fn invalid_messages_are_refused() {
        let decode = |bytes: &'static [u8]| {
            Frame::decode(&Bytes::from_static(bytes), StreamProtocol::V1).unwrap_err()
        };
        assert_eq!(decode(&[]), InvalidFrame::Empty);
        assert_eq!(decode(&[2, 0]), InvalidFrame::UnknownType(2));
        assert_eq!(decode(&[0]), InvalidFrame::WrongLength { kind: 0, length: 1 });
        assert_eq!(decode(&[0, 3]), InvalidFrame::UnknownStream(3));
        assert_eq!(decode(&[1, 0, 0, 0, 1]), InvalidFrame::WrongLength { kind: 1, length: 5 });
        assert_eq!(decode(&[4, 0]), InvalidFrame::WrongLength { kind: 4, length: 2 });
    }

    #[test]
    fn version_1_has_no_signals_and_no_detail_of_an_exit() {
        let decode = |bytes: &'static [u8]| {
            Frame::decode(&Bytes::from_static(bytes), StreamProtocol::V1).unwrap_err()
        };
        assert_eq!(decode(&[6, 15]), InvalidFrame::UnknownType(6));
        assert_eq!(decode(&[5, 0, b'{']), InvalidFrame::WrongLength { kind: 5, length: 3 });
    }

    #[test]
    fn a_message_has_a_maximum_size() {
        let long = Bytes::from(vec![0; SHELL_MESSAGE + 1]);
        assert_eq!(
            Frame::decode(&long, StreamProtocol::V1),
            Err(InvalidFrame::TooLong(SHELL_MESSAGE + 1))
        );
        let largest = Bytes::from(vec![0; SHELL_MESSAGE]);
        assert!(Frame::decode(&largest, StreamProtocol::V1).is_ok());
    }
}
