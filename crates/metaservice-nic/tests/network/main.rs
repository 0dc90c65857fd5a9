//! The network card, with an independent TCP/IP stack at the other end of the cable.
#![allow(clippy::unwrap_used, missing_docs)]

mod connections;
mod flow;
mod hostile;
mod joined;
mod streams;
