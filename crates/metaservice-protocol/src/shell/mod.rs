//! The shell stream: frames, flow control, and the state machine of one shell.
//!
//! A shell is a websocket that the guest dials in answer to an exec-shell action.
//! Every binary message is one [`Frame`]. Both ends run a [`Session`], which decides
//! what may be sent and what must be answered, and which knows neither the
//! websocket nor the clock; [`Keepalive`] decides when to ping and when to give up.

mod dialect;
mod frame;
mod keepalive;
mod session;
mod window;

pub use dialect::Dialect;
pub use frame::{Frame, InvalidFrame, Stream};
pub use keepalive::{Keepalive, Pulse};
pub use session::{Event, Role, Session, Violation};
pub use window::{ReceiveWindow, SendWindow, WindowExceeded};
