//! The messages of a tunnel, as bytes: a kind, a number, and what the kind has.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of these messages.
const VERSION: u8 = 1;

/// The most bytes of a stream in one message.
pub const MAX_DATA: usize = 64 * 1024;

/// Why a connection ends before both sides have finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The attempt of the job is over.
    #[error("the attempt of the job is over")]
    Ended,
    /// The job has as many connections as it may have.
    #[error("the job has too many connections")]
    TooMany,
    /// The worker cannot connect to the job's control socket.
    #[error("the worker cannot connect to the job")]
    CannotConnect,
    /// A message was lost, or came twice.
    #[error("a message of the connection was lost")]
    Lost,
    /// A message does not follow the rules.
    #[error("the other side sent a message that is not valid")]
    Broken,
    /// The other side is gone, or sent nothing for too long.
    #[error("the other side does not answer")]
    Silent,
    /// The process at the other side has closed its stream.
    #[error("the other side has closed the connection")]
    Closed,
    /// The other side speaks a version that this one does not know.
    #[error("the worker does not speak this version")]
    Version,
}

/// Each reason has its place here as its number in a message.
const REASONS: [Reason; 8] = [
    Reason::Ended,
    Reason::TooMany,
    Reason::CannotConnect,
    Reason::Lost,
    Reason::Broken,
    Reason::Silent,
    Reason::Closed,
    Reason::Version,
];

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// The client wants a connection.
    Open,
    /// The worker has connected to the job.
    Opened,
    /// Bytes of the stream: at most [`MAX_DATA`].
    Data(Bytes),
    /// The other side may send so much more.
    Credit(u32),
    /// The sender writes no more.
    Finish,
    /// The sender is there.
    Ping,
    /// The connection is over.
    Reset(Reason),
}

impl Frame {
    /// The message with this number.
    #[must_use]
    pub fn encode(&self, number: u64) -> Bytes {
        let length = if let Self::Data(data) = self { data.len() } else { 4 };
        let mut bytes = BytesMut::with_capacity(9 + length);
        bytes.put_u8(match self {
            Self::Open => 0,
            Self::Opened => 1,
            Self::Data(_) => 2,
            Self::Credit(_) => 3,
            Self::Finish => 4,
            Self::Ping => 5,
            Self::Reset(_) => 6,
        });
        bytes.put_u64(number);
        match self {
            Self::Open => bytes.put_u8(VERSION),
            Self::Data(data) => bytes.put_slice(data),
            Self::Credit(credit) => bytes.put_u32(*credit),
            Self::Reset(reason) => {
                let place = REASONS.iter().position(|known| known == reason).unwrap_or_default();
                bytes.put_u8(u8::try_from(place).unwrap_or_default());
            }
            Self::Opened | Self::Finish | Self::Ping => {}
        }
        bytes.freeze()
    }

    /// The number and the content of a message.
    ///
    /// # Errors
    /// [`Reason::Version`] for another version, [`Reason::Broken`] for what is no message.
    pub fn decode(message: &Bytes) -> Result<(u64, Self), Reason> {
        let mut rest = message.clone();
        let kind = rest.try_get_u8().map_err(|_| Reason::Broken)?;
        let number = rest.try_get_u64().map_err(|_| Reason::Broken)?;
        let frame = match (kind, rest.len()) {
            // A newer version may say more here.
            (0, 1..) if rest.first() != Some(&VERSION) => return Err(Reason::Version),
            (0, 1) => Self::Open,
            (1, 0) => Self::Opened,
            (2, 1..=MAX_DATA) => Self::Data(rest),
            (3, 4) => Self::Credit(rest.get_u32()),
            (4, 0) => Self::Finish,
            (5, 0) => Self::Ping,
            (6, 1) => {
                let reason = REASONS.get(usize::from(rest.get_u8()));
                Self::Reset(reason.copied().unwrap_or(Reason::Broken))
            }
            _ => return Err(Reason::Broken),
        };
        Ok((number, frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_message_is_read_as_it_was_written() {
        let data = Frame::Data(Bytes::from(vec![7; MAX_DATA]));
        let plain = [Frame::Open, Frame::Opened, Frame::Finish, Frame::Ping, data];
        let resets = REASONS.map(Frame::Reset);
        let credits = [Frame::Credit(0), Frame::Credit(u32::MAX)];
        for frame in plain.into_iter().chain(resets).chain(credits) {
            assert_eq!(Frame::decode(&frame.encode(1 << 40)), Ok((1 << 40, frame)));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let too_long = Frame::Data(Bytes::from(vec![7; MAX_DATA + 1])).encode(0);
        let newer = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 9]);
        let (none, kind) = (Bytes::new(), Bytes::from_static(&[9; 9]));
        let no_data = Frame::Data(Bytes::new()).encode(0);
        for wrong in [too_long, none, kind, no_data] {
            assert_eq!(Frame::decode(&wrong), Err(Reason::Broken));
        }
        assert_eq!(Frame::decode(&newer), Err(Reason::Version));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = Bytes::from(bytes);
            if let Ok((number, frame)) = Frame::decode(&bytes) {
                let unknown = matches!(frame, Frame::Reset(Reason::Broken));
                prop_assert!(unknown || frame.encode(number) == bytes);
            }
        }
    }
}
