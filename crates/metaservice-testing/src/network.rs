//! A guest on a virtual cable: an independent TCP/IP stack with a card, ARP and a DHCP client.
//!
//! [`Guest`] has no I/O and no clock, like the core of the card. [`Machine`] connects it to a
//! socket. [`Segment`] and [`ipv4_frame`] make frames that no correct stack sends.

mod addresses;
mod frames;
mod guest;
mod machine;

pub use addresses::{ADDRESS, HARDWARE, SERVICE_ADDRESS, SERVICE_HARDWARE};
pub use frames::{Flags, Segment, ipv4_frame};
pub use guest::{Cable, Guest, Rx, Tx, instant};
pub use machine::Machine;
