//! The shell stream: messages, flow control, and the state machine of one end.
//!
//! A shell stream is a websocket that the agent opens as its reply to an action. Each binary
//! message is one [`Frame`]. Both ends run a [`ShellSession`]. It decides what the end may send and
//! must answer; it knows neither the websocket nor the clock. [`Keepalive`] decides when to send a
//! ping and when to give up.

mod frame;
mod keepalive;
mod protocol;
mod session;
mod window;

pub use frame::{Frame, InvalidFrame, Stream};
pub use keepalive::{Keepalive, Pulse};
pub use protocol::StreamProtocol;
pub use session::{Event, Role, ShellSession, Violation};
pub use window::WindowExceeded;
