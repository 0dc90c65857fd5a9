//! The gateway, between an independent TCP/IP stack and real sockets of this host.
#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod bypass;
mod connections;
mod datagrams;
mod echoes;
mod hello;
mod limits;
mod names;
mod policies;
mod published;
mod system;
mod world;
