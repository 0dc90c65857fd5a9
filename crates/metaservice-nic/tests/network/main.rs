//! The network card, with an independent TCP/IP stack at the other end of the cable.
#![allow(clippy::unwrap_used, missing_docs)]

mod hostile;
mod simulated;
mod streams;
