//! A user-space network card for one QEMU guest, whose connections are async byte streams.
//!
//! QEMU's `-netdev stream` is a socket that carries Ethernet frames. [`attach`] takes the other
//! end. It is the whole network of the guest: a host with the address 169.254.169.254 that answers
//! ARP, ping and DHCP, and accepts TCP connections. Each of them is a [`Connection`], which reads
//! and writes like other streams. It needs no root, no tap device and no port of the host.
//!
//! ```
//! use metaservice_nic::{Config, attach};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn serve(socket: tokio::net::UnixStream) -> Result<(), Box<dyn std::error::Error>> {
//! // `socket` is connected to QEMU: -netdev stream,id=n0,addr.type=fd,addr.str=...
//! let (mut nic, driver) = attach(socket, Config::default());
//! let driver = tokio::spawn(driver.run());
//! while let Some(mut connection) = nic.accept().await {
//!     tokio::spawn(async move {
//!         connection.write_all(b"hello, guest\n").await?;
//!         connection.shutdown().await
//!     });
//! }
//! println!("{:?}", driver.await??);
//! # Ok(())
//! # }
//! ```
//!
//! The crate has two layers. [`interface`] and [`frame`] are the card as plain values, without I/O
//! and without a clock. [`Driver`], [`Nic`] and [`Connection`] are a thin async shell.
//!
//! With [`attach_gateway`], the card is also the guest's only router. DHCP gives the guest its
//! place in a [`Network`]. What it wants from addresses behind the card comes to the owner of a
//! [`Gateway`], who decides: attempts to connect, datagrams and echo requests. The owner connects
//! to ports of the guest by [`Gateway::connect`]. The card opens no sockets itself.
//!
//! ```
//! use metaservice_nic::{Config, Unreachable, attach_gateway};
//!
//! # async fn route(socket: tokio::net::UnixStream) {
//! let (nic, gateway, driver) = attach_gateway(socket, Config::default());
//! let driver = tokio::spawn(driver.run());
//! while let Some(attempt) = gateway.attempt().await {
//!     println!("{} wants to connect to {}", attempt.source(), attempt.destination());
//!     attempt.unreachable(Unreachable::Prohibited);
//! }
//! # }
//! ```
//!
//! It supports only what such a guest needs: no IPv6, no UDP service except DHCP, no IP fragments.
//! It knows no policy, neither HTTP nor QEMU's command line. The guest is hostile: whatever it
//! sends uses a limited amount of memory ([`Limits`]), and dropped frames are counted
//! ([`Statistics`]).

#![forbid(unsafe_code)]

pub mod frame;
pub mod interface;

mod address;
mod addresses;
mod config;
mod connection;
mod dhcp;
mod driver;
mod error;
mod ethernet;
mod gateway;
mod network;
mod nic;
mod pace;
mod pcap;
mod shared;
mod stale;
mod statistics;

pub use address::{
    GuestAddress, InvalidGuestAddress, InvalidMtu, Mtu, PREFIX_LENGTH, SERVICE_ADDRESS,
    SERVICE_HARDWARE_ADDRESS, SERVICE_PORT,
};
pub use config::{Config, Limits};
pub use connection::Connection;
pub use driver::Driver;
pub use error::{AttemptError, ConnectError, Error, StreamError};
pub use frame::FramingError;
pub use gateway::{Attempt, Echo, Gateway, Sender};
pub use network::{Datagram, EchoRequest, Network, Protocol, Rejected, Unreachable};
pub use nic::{Nic, Observer, attach, attach_gateway};
pub use pcap::Pcap;
pub use stale::StaleConnection;
pub use statistics::{DropReason, Dropped, Statistics};
