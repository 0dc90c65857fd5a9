//! The ways from the guest to servers of this host: the gateway of metaservice, QEMU's user
//! network, and passt.
//!
//! Owns their addresses, which do not overlap, and the policy of the gateway.

use std::net::Ipv4Addr;

use anyhow::Context;
use metaservice_egress::Policy;
use metaservice_gateway::Config;
use metaservice_nic::Network;

use super::lab::Lab;

/// How `ip` sets up the guest's card in QEMU's user network, whose router is this host.
pub(super) const USER_CARD: [&str; 2] =
    ["link set eth1 up", "address replace 10.0.2.15/24 dev eth1"];
const USER_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const USER_RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// How `ip` sets up the guest's card behind passt, with the MTU that passt announces.
pub(super) const PASST_CARD: [&str; 3] =
    ["link set eth2 mtu 65520", "link set eth2 up", "address replace 10.0.4.15/24 dev eth2"];
pub(super) const PASST_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 15);
pub(super) const PASST_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 2);
pub(super) const PASST_RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 3);

/// How `ip` sets up the guest's card behind the gateway.
pub(super) const GATEWAY_CARD: [&str; 2] =
    ["address replace 10.0.3.15/24 dev eth0", "route replace default via 10.0.3.2"];
const GATEWAY_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 15);
const GATEWAY_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

/// The name of this host for a guest behind the gateway.
const HOST: &str = "host.internal";

/// The name for which resolvers are asked.
pub(super) const NAME: &str = "deb.debian.org";

/// A way from the guest to this host.
#[derive(Debug, Clone, Copy)]
pub(super) enum Router {
    Gateway,
    User,
    Passt,
}

impl Router {
    /// The address by which the guest reaches a port of this host.
    pub(super) fn reach(self, lab: &Lab, port: u16) -> anyhow::Result<String> {
        let address = match self {
            Self::User => {
                lab.peers()?;
                USER_ROUTER.to_string()
            }
            Self::Passt => {
                lab.passt()?;
                PASST_ROUTER.to_string()
            }
            Self::Gateway => {
                let answer = lab.play(&["ask", &self.resolver(lab)?, HOST, "1"])?;
                answer.lines().next().context("the resolver gives no address")?.to_owned()
            }
        };
        Ok(format!("{address}:{port}"))
    }

    /// The resolver of the guest.
    pub(super) fn resolver(self, lab: &Lab) -> anyhow::Result<String> {
        let address = match self {
            Self::Gateway => GATEWAY_ROUTER,
            Self::User => {
                lab.peers()?;
                USER_RESOLVER
            }
            Self::Passt => {
                lab.passt()?;
                PASST_RESOLVER
            }
        };
        Ok(format!("{address}:53"))
    }
}

/// The guest's network behind the gateway.
pub(super) fn network() -> Network {
    let mut network = Network::default();
    network.guest = GATEWAY_GUEST;
    network.router = GATEWAY_ROUTER;
    network
}

/// A gateway that leads to all ports of this host, and knows one more name.
pub(super) fn config() -> anyhow::Result<Config> {
    let mut config = Config::default();
    config.policy = Policy::new(["host:1-65535".parse()?, format!("{NAME}:443").parse()?], []);
    config.network = network();
    Ok(config)
}
