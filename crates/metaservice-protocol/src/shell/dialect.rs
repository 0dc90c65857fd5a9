//! The two ways of speaking on a shell's websocket.

use crate::limits::{
    SHELL_BLOCK, SHELL_MESSAGE, SHELL_WINDOW, SHELL2_BLOCK, SHELL2_MESSAGE, SHELL2_WINDOW,
};

/// How two ends of a stream speak, agreed on in the websocket's handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Version 1: no subprotocol.
    #[default]
    V1,
    /// Extension: the subprotocol [`SHELL_PROTOCOL`](crate::endpoint::SHELL_PROTOCOL). Larger windows,
    /// blocks and messages, signals, and an exit with its detail.
    V2,
}

impl Dialect {
    /// The most bytes of a stream that may be sent and not yet acknowledged.
    #[must_use]
    pub const fn window(self) -> usize {
        match self {
            Self::V1 => SHELL_WINDOW,
            Self::V2 => SHELL2_WINDOW,
        }
    }

    /// The most payload bytes in one data message.
    #[must_use]
    pub const fn block(self) -> usize {
        match self {
            Self::V1 => SHELL_BLOCK,
            Self::V2 => SHELL2_BLOCK,
        }
    }

    /// The largest message, in bytes.
    #[must_use]
    pub const fn message(self) -> usize {
        match self {
            Self::V1 => SHELL_MESSAGE,
            Self::V2 => SHELL2_MESSAGE,
        }
    }

    /// How many consumed bytes are worth an acknowledgement: one in version 1, whose peers may
    /// wait for each; a quarter of the window in the second dialect. A sender is never held back
    /// by what is less, as the window is four times that.
    #[must_use]
    pub const fn grain(self) -> usize {
        match self {
            Self::V1 => 1,
            Self::V2 => SHELL2_WINDOW / 4,
        }
    }
}
