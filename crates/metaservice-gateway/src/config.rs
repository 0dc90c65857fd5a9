//! The configuration of a gateway, and the limits on what one guest can use.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use metaservice_egress::{DomainName, Policy};
use metaservice_nic::Network;

use crate::log::LogFile;
use crate::proxy::Proxy;
use crate::uplink::{SystemUplink, Uplink};

/// The limits on what one guest can use of the host's network.
///
/// What is above a limit is refused at once, and recorded with the reason `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// TCP connections, also those that are being dialled. Each has a socket of the host.
    pub connections: usize,
    /// Connections that are being dialled.
    pub dialling: usize,
    /// Connections to one name.
    pub per_name: usize,
    /// How long the host resolves a name and dials its addresses.
    pub dial: Duration,
    /// Names that have an address. A new name takes the address of the one that was used least
    /// recently and has no connection.
    pub names: usize,
    /// DNS questions in a second, on average. A burst can have twice as many. A client asks twice
    /// for each connection, for IPv4 and for IPv6.
    pub queries: u32,
    /// TCP connections to the resolver.
    pub resolver_connections: usize,
    /// UDP associations: pairs of a port of the guest and a destination. Each has a socket of the
    /// host.
    pub associations: usize,
    /// How long a UDP association stays without a datagram.
    pub association_idle: Duration,
    /// Connections to published ports, in total.
    pub published: usize,
}

impl Default for Limits {
    /// 2048 connections, 1024 of them being dialled for at most 20 s, 1024 to one name. 4096 names,
    /// 1000 questions in a second, 32 connections to the resolver. 256 associations of UDP, which
    /// end after a minute. 1024 connections to published ports.
    fn default() -> Self {
        Self {
            connections: 2048,
            dialling: 1024,
            per_name: 1024,
            dial: Duration::from_secs(20),
            names: 4096,
            queries: 1000,
            resolver_connections: 32,
            associations: 256,
            association_idle: Duration::from_secs(60),
            published: 1024,
        }
    }
}

/// The configuration of a gateway.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// What the guest may connect to.
    pub policy: Policy,
    /// The network of the card: [`metaservice_nic::Config::network`].
    pub network: Network,
    /// The limits.
    pub limits: Limits,
    /// The names that the guest has addresses of, from the [`Control::names`] of the gateway that
    /// it had before its snapshot.
    ///
    /// [`Control::names`]: crate::Control::names
    pub names: Vec<(Ipv4Addr, DomainName)>,
    /// Where each attempt is recorded. Without a file, there are only totals and first denials.
    pub log: Option<LogFile>,
    /// The proxy through which names are reached.
    pub proxy: Proxy,
    /// How the host resolves and connects.
    pub uplink: Arc<dyn Uplink>,
}

impl Default for Config {
    /// Nothing is allowed. The default network and limits, no file, no proxy, the sockets of this
    /// host.
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            network: Network::default(),
            limits: Limits::default(),
            names: Vec::new(),
            log: None,
            proxy: Proxy::default(),
            uplink: Arc::new(SystemUplink::default()),
        }
    }
}
