//! The two versions of the protocol of a shell stream.

use crate::header::{SHELL1_PROTOCOL, SHELL2_PROTOCOL};
use crate::limits::{
    SHELL_BLOCK, SHELL_MESSAGE, SHELL_WINDOW, SHELL2_BLOCK, SHELL2_MESSAGE, SHELL2_WINDOW,
};

/// The version of a shell stream's protocol. The two ends agree on it in the websocket handshake.
///
/// ```
/// use metaservice_protocol::shell::StreamProtocol;
///
/// assert!(StreamProtocol::V2.window() > StreamProtocol::V1.window());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum StreamProtocol {
    /// Version 1: the handshake names no subprotocol, or [`SHELL1_PROTOCOL`].
    #[default]
    V1,
    /// Extension: the subprotocol is [`SHELL2_PROTOCOL`]. Windows, blocks and messages are larger;
    /// there are signals; the exit has a detail.
    V2,
}

impl StreamProtocol {
    /// The name of the websocket subprotocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => SHELL1_PROTOCOL,
            Self::V2 => SHELL2_PROTOCOL,
        }
    }

    /// The maximum number of bytes of a stream that were sent and not acknowledged.
    #[must_use]
    pub const fn window(self) -> usize {
        match self {
            Self::V1 => SHELL_WINDOW,
            Self::V2 => SHELL2_WINDOW,
        }
    }

    /// The maximum payload of one data message, in bytes.
    #[must_use]
    pub const fn block(self) -> usize {
        match self {
            Self::V1 => SHELL_BLOCK,
            Self::V2 => SHELL2_BLOCK,
        }
    }

    /// The maximum size of a message, in bytes.
    #[must_use]
    pub const fn message(self) -> usize {
        match self {
            Self::V1 => SHELL_MESSAGE,
            Self::V2 => SHELL2_MESSAGE,
        }
    }

    /// How many consumed bytes cause an acknowledgement.
    ///
    /// Peers of version 1 may wait for each byte, so there it is 1. In version 2 it is a quarter
    /// of the window: less unacknowledged data cannot stop a sender.
    #[must_use]
    pub const fn acknowledge_after(self) -> usize {
        match self {
            Self::V1 => 1,
            Self::V2 => SHELL2_WINDOW / 4,
        }
    }
}
