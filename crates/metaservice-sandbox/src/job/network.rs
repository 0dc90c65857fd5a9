//! The network of a job's guest, checked: what the guest may connect to, and the ports that lead
//! into it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use metaservice_egress::file::{self, PolicyError, Source};
use metaservice_egress::{Attempt, InvalidRule, Peer, Policy, Rule, Target, Transport, Verdict};
use metaservice_gateway::{SystemUplink, Uplink as _};

use crate::spec::{NetworkMode, NetworkSpec};

/// The network of a guest. By default, the guest reaches only the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    policy: Policy,
    log: Option<PathBuf>,
    publish: Vec<Publish>,
}

/// A port of this host that leads to a port of the guest: `[ADDR:]PORT:GUEST_PORT[/udp]`.
///
/// Without an address, only this host can connect.
///
/// ```
/// use metaservice_sandbox::job::Publish;
///
/// let publish: Publish = "0.0.0.0:8080:80".parse()?;
/// assert_eq!(publish.listen, "0.0.0.0:8080".parse().unwrap());
/// assert_eq!(publish.guest_port, 80);
/// # Ok::<(), metaservice_sandbox::job::InvalidPublish>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// An address of this host, and its port. Port 0 stands for a port that is free.
    pub listen: SocketAddr,
    /// The port of the guest, not 0.
    pub guest_port: u16,
    /// The protocol.
    pub transport: Transport,
}

/// Text that is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not [ADDR:]PORT:GUEST_PORT[/udp]: {1}")]
pub struct InvalidPublish(String, Part);

/// The part of a published port that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Part {
    #[error("one port is missing")]
    Missing,
    #[error("ADDR is an IPv4 address, or an IPv6 address in brackets")]
    Address,
    #[error("PORT is a number from 0 to 65535")]
    Port,
    #[error("GUEST_PORT is a number from 1 to 65535")]
    GuestPort,
    #[error("the protocol is udp, or tcp without it")]
    Protocol,
}

/// Why the description of a network is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNetwork {
    /// A rule that allows is none.
    #[error("in machine.network.allow ({rule})")]
    Allow {
        /// The rule, as it is written.
        rule: String,
        /// Why.
        #[source]
        cause: InvalidRule,
    },
    /// A rule that denies is none.
    #[error("in machine.network.deny ({rule})")]
    Deny {
        /// The rule, as it is written.
        rule: String,
        /// Why.
        #[source]
        cause: InvalidRule,
    },
    /// The file of the policy is wrong, or one that it includes.
    #[error("in machine.network.policy")]
    Policy(#[source] PolicyError),
    /// It is no published port.
    #[error("in machine.network.publish")]
    Publish(#[source] InvalidPublish),
    /// The mode `none` has no rules.
    #[error("the mode none has no rules and no policy")]
    None,
    /// There are rules that deny, and everything is denied without them.
    #[error("rules that deny need something that is allowed: mode open, a rule or a policy")]
    NothingAllowed,
}

impl Network {
    /// Checks a description. Blocks: reads the files of the policy.
    ///
    /// # Errors
    /// The first value that is wrong, or that does not go with the others.
    pub fn resolve(spec: &NetworkSpec) -> Result<Self, InvalidNetwork> {
        let rule = |text: &String| {
            let rule = text.parse::<Rule>();
            rule.map_err(|cause| InvalidNetwork::Allow { rule: text.clone(), cause })
        };
        let allow = spec.allow.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        let rule = |text: &String| {
            let rule = text.parse::<Rule>();
            rule.map_err(|cause| InvalidNetwork::Deny { rule: text.clone(), cause })
        };
        let deny = spec.deny.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        let publish = spec.publish.iter().map(|text| text.parse());
        let publish = publish.collect::<Result<_, _>>().map_err(InvalidNetwork::Publish)?;
        let mut policy = Policy::new(allow, deny);
        if let Some(path) = &spec.policy {
            let source = Source::of_path(path);
            policy.extend(file::load(&source).map_err(InvalidNetwork::Policy)?);
        }
        // Last, because a verdict names the first rule that allows.
        if spec.mode == Some(NetworkMode::Open) {
            policy.extend(Policy::new([Rule::public()], []));
        }
        let allows = !spec.allow.is_empty() || spec.policy.is_some();
        let denies = !spec.deny.is_empty();
        match spec.mode {
            Some(NetworkMode::None) if allows || denies => return Err(InvalidNetwork::None),
            None if denies && !allows => return Err(InvalidNetwork::NothingAllowed),
            _ => {}
        }
        Ok(Self { policy, log: spec.log.clone(), publish })
    }

    /// Decides an attempt as the gateway does, except for the addresses of a name: no name is
    /// resolved. Asks the system whether the host has the address of the attempt.
    #[must_use]
    pub fn decide(&self, attempt: &Attempt) -> Verdict<'_> {
        match attempt.target {
            Target::Address(address) => {
                let own = SystemUplink::default().is_own(address);
                self.policy.decide_peer(attempt, Peer { address, own })
            }
            Target::Name(_) | Target::Host => self.policy.decide(attempt),
        }
    }

    /// What the guest may connect to.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The file that has a line for each attempt of the guest.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The ports of this host that lead into the guest.
    #[must_use]
    pub fn published(&self) -> &[Publish] {
        &self.publish
    }

    /// Whether the guest reaches only the service, and is reached only by it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// `none`, `open` or `policy`.
    pub(crate) fn mode(&self) -> &'static str {
        let only_public = self.policy == Policy::new([Rule::public()], []);
        match self {
            _ if only_public => "open",
            Self { policy, .. } if *policy == Policy::default() => "none",
            _ => "policy",
        }
    }
}

impl FromStr for Publish {
    type Err = InvalidPublish;

    fn from_str(text: &str) -> Result<Self, InvalidPublish> {
        parse(text).map_err(|part| InvalidPublish(text.to_owned(), part))
    }
}

fn parse(text: &str) -> Result<Publish, Part> {
    let (ports, transport) = match text.rsplit_once('/') {
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some(_) => return Err(Part::Protocol),
        None => (text, Transport::Tcp),
    };
    let (host, guest_port) = ports.rsplit_once(':').ok_or(Part::Missing)?;
    let (address, own) = match host.rsplit_once(':') {
        Some((address, own)) => (self::address(address).ok_or(Part::Address)?, own),
        None => (Ipv4Addr::LOCALHOST.into(), host),
    };
    // The parser of the standard library also takes a plus sign.
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| digits(text));
    let listen = SocketAddr::new(address, port(own).ok_or(Part::Port)?);
    let guest_port = port(guest_port).filter(|port| *port > 0).ok_or(Part::GuestPort)?;
    Ok(Publish { listen, guest_port, transport })
}

/// An IPv4 address, or an IPv6 address in brackets.
fn address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.transport == Transport::Udp { "/udp" } else { "" };
        write!(f, "{}:{}{protocol}", self.listen, self.guest_port)
    }
}

#[cfg(test)]
mod tests {
    use metaservice_egress::Attempt;

    use super::*;

    fn network(change: impl FnOnce(&mut NetworkSpec)) -> Result<Network, InvalidNetwork> {
        let mut spec = NetworkSpec::default();
        change(&mut spec);
        Network::resolve(&spec)
    }

    fn allows(network: &Network, attempt: &str) -> bool {
        network.policy().decide(&attempt.parse::<Attempt>().unwrap()).is_allowed()
    }

    #[test]
    fn a_guest_reaches_what_the_rules_allow() {
        let none = network(|_| {}).unwrap();
        assert!(none.is_none() && !allows(&none, "a.example:443"));
        let open = network(|spec| spec.mode = Some(NetworkMode::Open)).unwrap();
        assert!(allows(&open, "a.example:443") && !allows(&open, "10.0.0.1:443"));
        let rules = network(|spec| {
            spec.allow = vec!["*.example".into(), "10.0.0.0/8:22".into()];
            spec.deny = vec!["b.example".into()];
            spec.policy = Some("pip".into());
        });
        let rules = rules.unwrap();
        for (attempt, allowed) in [
            ("a.example:443", true),
            ("b.example:443", false),
            ("10.0.0.1:22", true),
            ("pypi.org:443", true),
            ("pypi.org:80", false),
        ] {
            assert_eq!(allows(&rules, attempt), allowed, "{attempt}");
        }
        assert_eq!([none, open, rules].map(|network| network.mode()), ["none", "open", "policy"]);
    }

    #[test]
    fn a_wrong_network_is_refused() {
        let refused = |change: fn(&mut NetworkSpec)| network(change).unwrap_err();
        let allow = refused(|spec| spec.allow = vec!["*".into()]);
        assert_eq!(allow.to_string(), "in machine.network.allow (*)");
        let deny = refused(|spec| spec.deny = vec!["host".into()]);
        assert_eq!(deny.to_string(), "in machine.network.deny (host)");
        let nothing = refused(|spec| spec.deny = vec!["a.example".into()]);
        assert!(matches!(nothing, InvalidNetwork::NothingAllowed));
        for rule in ["allow", "deny"] {
            let none = network(|spec| {
                spec.mode = Some(NetworkMode::None);
                let rules = if rule == "allow" { &mut spec.allow } else { &mut spec.deny };
                rules.push("a.example".into());
            });
            assert!(matches!(none, Err(InvalidNetwork::None)));
        }
        let policy = refused(|spec| spec.policy = Some("/no/such".into()));
        assert!(matches!(policy, InvalidNetwork::Policy(PolicyError::Read { .. })));
    }

    #[test]
    fn a_published_port_has_an_address_and_a_protocol_or_not() {
        for (text, shown) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("0:80", "127.0.0.1:0:80"),
            ("0.0.0.0:53:5353/udp", "0.0.0.0:53:5353/udp"),
            ("127.0.0.2:1:2/tcp", "127.0.0.2:1:2"),
            ("[::1]:1:2", "[::1]:1:2"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), shown);
            assert_eq!(shown.parse(), Ok(publish));
        }
        for (wrong, part) in [
            ("", Part::Missing),
            ("80", Part::Missing),
            (":80", Part::Port),
            ("80:", Part::GuestPort),
            ("80:0", Part::GuestPort),
            ("80:65536", Part::GuestPort),
            ("65536:80", Part::Port),
            ("+80:80", Part::Port),
            ("80-81:80-81", Part::Port),
            ("::1:1:2", Part::Address),
            ("[1.1.1.1]:1:2", Part::Address),
            ("a:1:2", Part::Address),
            ("localhost:1:2", Part::Address),
            ("1:2/sctp", Part::Protocol),
            ("1:2/", Part::Protocol),
            ("1,x:2", Part::Port),
            ("1:2:3:4", Part::Address),
            ("1.2.3:1:2", Part::Address),
        ] {
            let error = Err(InvalidPublish(wrong.into(), part));
            assert_eq!(wrong.parse::<Publish>(), error, "{wrong}");
        }
        assert_eq!(
            "80:0".parse::<Publish>().unwrap_err().to_string(),
            "\"80:0\" is not [ADDR:]PORT:GUEST_PORT[/udp]: GUEST_PORT is a number from 1 to 65535"
        );
    }
}
