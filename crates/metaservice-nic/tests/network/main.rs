//! The network card, with an independent TCP/IP stack at the other end of the cable.
#![allow(clippy::unwrap_used, missing_docs)]

mod buffers;
mod calls;
mod carried;
mod connections;
mod flow;
mod gateway;
mod hostile;
mod hostile_gateway;
mod joined;
mod owners;
mod packets;
mod routed;
mod streams;
