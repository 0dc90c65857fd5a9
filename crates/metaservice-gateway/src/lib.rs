//! Connects a guest to what its policy allows, and to nothing else.
//!
//! The guest's card ([`metaservice_nic`]) is its only router. It yields attempts to connect and
//! datagrams, and decides nothing. [`metaservice_egress`] decides, and has no socket. This crate
//! joins both: a [`Gateway`] owns the sockets, tasks and times.
//!
//! ```text
//!   attempt ─► gate: name or address? allowed? within the limits? ── no ──► RST, at once
//!                │ yes
//!                ▼
//!              dial: resolve, check each address, connect ── fails ──► RST or ICMP error
//!                │ the peer is there
//!                ▼
//!              SYN-ACK ─► relay, which reads the name in TLS and HTTP ─► one line of the log
//! ```
//!
//! | module | owns |
//! | --- | --- |
//! | `gate` | the decisions and the tables, without I/O: who may begin, continue, and must end |
//! | `resolver` | the answers to DNS questions, by UDP and TCP |
//! | `dial`, `eyeballs`, `proxy` | the way to a peer |
//! | `ends`, `relay`, `inspect` | a connection: both directions, and the name that it must carry |
//! | `udp` | associations of UDP |
//! | `echo` | echo requests |
//! | `publish` | ports of the host that lead to the guest |
//! | `log` | the record of each attempt, the totals, the first denials |
//!
//! ```no_run
//! use metaservice_gateway::{Config, Gateway};
//! use metaservice_nic::attach_gateway;
//!
//! # async fn run(socket: tokio::net::UnixStream) -> Result<(), Box<dyn std::error::Error>> {
//! let (nic, router, driver) = attach_gateway(socket, metaservice_nic::Config::default());
//! let mut config = Config::default();
//! config.policy = metaservice_egress::Policy::new(["pypi.org:443".parse()?], []);
//! let mut gateway = Gateway::start(router, config);
//! let control = gateway.control();
//! // ... run the driver, serve the connections of `nic`, and print what is denied first.
//! while let Some(denial) = gateway.denial().await {
//!     println!("{:?}: allow it by {:?}", denial.record.name, denial.rule);
//! }
//! println!("{:?}", control.totals());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod config;
mod control;
mod dial;
mod echo;
mod ends;
mod eyeballs;
mod gate;
mod gateway;
mod inspect;
mod log;
mod proxy;
mod publish;
mod rate;
mod relay;
mod resolver;
mod shared;
mod tcp;
mod udp;
mod uplink;

pub use config::{Config, Limits};
pub use control::Control;
pub use gateway::Gateway;
pub use log::{Denial, Follower, LogEnd, LogFile};
pub use proxy::{InvalidProxy, Proxy};
pub use publish::{Publication, PublishError};
pub use uplink::{SystemUplink, Uplink, UplinkFuture};
