//! One rule of a policy, as a user writes it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::attempt::Transport;
use crate::class::AddressClass;
use crate::name::{DomainName, InvalidName};
use crate::ports::{InvalidPorts, Ports};
use crate::preset::Preset;

/// A rule: `NAME[:PORTS]`, `*.NAME[:PORTS]`, `CIDR[:PORTS][/udp]`, `host:PORT`, `public`.
///
/// A rule of names and `host` are for TCP. `public` is for TCP and UDP. An IPv6 network with ports
/// is in brackets: `[2001:db8::/32]:443`.
///
/// ```
/// use metaservice_egress::Rule;
///
/// let rule: Rule = "*.example.org:443".parse()?;
/// assert_eq!(rule.to_string(), "*.example.org:443");
/// # Ok::<(), metaservice_egress::InvalidRule>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it matches.
    pub(crate) pattern: Pattern,
    pub(crate) ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// This name. The flag accepts TLS without a readable name.
    Name(DomainName, AnySni),
    /// All names below this one.
    Below(DomainName, AnySni),
    /// A network of raw addresses.
    Network(IpNet, Transport),
    /// The loopback interface of the host.
    Host,
    /// Each public address, and each name that resolves to one.
    Public,
}

/// Whether a TLS connection without a readable name is accepted: one with ECH, or without SNI.
pub(crate) type AnySni = bool;

/// The suffix of a rule that accepts TLS without a readable name.
const ANY_SNI: &str = "/any-sni";
const UDP: &str = "/udp";

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRule {
    /// The name is none.
    #[error("the rule has no valid name")]
    Name(#[from] InvalidName),
    /// The ports are none.
    #[error("the rule has no valid ports")]
    Ports(#[from] InvalidPorts),
    /// There is a `*` that is not the first label.
    #[error("write '*' as the first label only, for example *.example.org")]
    Wildcard,
    /// `*` alone, or the network of all addresses. It would have the host's private networks too.
    #[error("write 'public' for the whole internet")]
    Everything,
    /// `host` without one port.
    #[error("write a port of this host as host:PORT")]
    Host,
    /// A loopback name or address.
    #[error("write a port of this host as host:PORT, not by a loopback name or address")]
    Loopback,
    /// The loopback interface of the host with a protocol.
    #[error("a port of this host is for TCP only: host:PORT")]
    HostProtocol,
    /// `public` with something behind it, or in other letters.
    #[error("'public' has no ports and no protocol, and is written in small letters")]
    Public,
    /// A network with bits behind its prefix.
    #[error("the address has bits after the prefix; write {0}")]
    Prefix(IpNet),
    /// A prefix that the address does not have.
    #[error("the prefix is a number, up to 32 for IPv4 and up to 128 for IPv6")]
    PrefixLength,
    /// An IPv6 network with ports, without brackets.
    #[error("an IPv6 network with ports is in brackets; write {0}")]
    Brackets(String),
    /// A name with a scheme or a path.
    #[error("write the name without a scheme and a path, for example a.example:443")]
    Url,
    /// Something else than `/udp` and `/any-sni` behind an address or a name.
    #[error("there is only '/udp' behind an address, and '/any-sni' behind a name; TCP needs none")]
    Suffix,
    /// A preset.
    #[error("'{0}' is a preset of policies, not a rule; for a host of this name, write {0}:PORT")]
    Preset(DomainName),
    /// A word that another option may have.
    #[error("'{0}' is no rule, but 'public' is; for a host of this name, write {0}:PORT")]
    Word(DomainName),
    /// `/udp` behind a name.
    #[error("UDP is allowed by addresses only: CIDR[:PORTS]/udp")]
    UdpName,
    /// `/any-sni` behind an address.
    #[error("'/any-sni' belongs to a rule of a name")]
    AnySniAddress,
}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        if text == "public" {
            return Ok(Self::public());
        }
        if text.starts_with("public:") || text.starts_with("public/") {
            return Err(InvalidRule::Public);
        }
        if text.contains("://") {
            return Err(InvalidRule::Url);
        }
        if text.starts_with("host/") || text.starts_with("host:") && text.contains('/') {
            return Err(InvalidRule::HostProtocol);
        }
        if let Some(port) = text.strip_prefix("host:") {
            let ports: Ports = port.parse()?;
            return Ok(Self { pattern: Pattern::Host, ports });
        }
        if text == "host" {
            return Err(InvalidRule::Host);
        }
        match address_rule(text) {
            Some(rule) => rule,
            None => name_rule(text),
        }
    }
}

/// A rule of a network. `None`: the text does not begin with an address.
fn address_rule(text: &str) -> Option<Result<Rule, InvalidRule>> {
    let (text, transport) = match text.strip_suffix(UDP) {
        Some(rest) => (rest, Transport::Udp),
        None => (text, Transport::Tcp),
    };
    let any_sni = text.strip_suffix(ANY_SNI);
    let text = any_sni.unwrap_or(text);
    let (network, ports) = split_network(text);
    let Some(network) = network else { return wrong_network(text).map(Err) };
    Some(if any_sni.is_some() {
        Err(InvalidRule::AnySniAddress)
    } else if ports.is_some_and(|ports| ports.contains('/')) {
        Err(InvalidRule::Suffix)
    } else {
        check_network(network, ports, transport)
    })
}

/// What is wrong behind an address with a slash. `None`: there is no address.
fn wrong_network(text: &str) -> Option<InvalidRule> {
    let (address, rest) = text.strip_prefix('[').unwrap_or(text).split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    if rest.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Some(InvalidRule::Suffix);
    }
    let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    let (length, behind) = rest.split_at(end);
    let network = format!("{address}/{length}");
    Some(match self::network(&network) {
        None => InvalidRule::PrefixLength,
        Some(_) if behind.starts_with('/') => InvalidRule::Suffix,
        Some(IpNet::V6(_)) if behind.starts_with(':') => {
            InvalidRule::Brackets(format!("[{network}]{behind}"))
        }
        Some(_) => InvalidRule::PrefixLength,
    })
}

fn check_network(
    network: IpNet,
    ports: Option<&str>,
    transport: Transport,
) -> Result<Rule, InvalidRule> {
    if network.trunc() != network {
        return Err(InvalidRule::Prefix(network.trunc()));
    }
    let network = canonical(network);
    let ports = ports.map(str::parse).transpose()?.unwrap_or_default();
    if network.prefix_len() == 0 {
        return Err(InvalidRule::Everything);
    }
    let is_loopback = |address| AddressClass::of(address) == AddressClass::Loopback;
    if network.prefix_len() >= 8 && is_loopback(network.addr()) && is_loopback(network.broadcast())
    {
        return Err(InvalidRule::Loopback);
    }
    Ok(Rule { pattern: Pattern::Network(network, transport), ports })
}

/// The IPv4 network of an IPv4-mapped one: addresses are compared in this form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

/// Splits `CIDR[:PORTS]` and `[CIDR][:PORTS]`.
fn split_network(text: &str) -> (Option<IpNet>, Option<&str>) {
    if let Some(network) = network(text) {
        return (Some(network), None);
    }
    if let Some((inner, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        // A wrong rest is given to the parser of ports, which says so.
        let ports = (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or(rest));
        return (network(inner), ports);
    }
    match text.split_once(':') {
        Some((address, ports)) => (network(address), Some(ports)),
        None => (None, None),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

fn name_rule(text: &str) -> Result<Rule, InvalidRule> {
    if text.ends_with(UDP) {
        return Err(InvalidRule::UdpName);
    }
    let (text, any_sni) = match text.strip_suffix(ANY_SNI) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if let Some((before, behind)) = text.split_once('/') {
        let is_suffix = before.contains(':') || matches!(behind, "tcp" | "udp");
        return Err(if is_suffix { InvalidRule::Suffix } else { InvalidRule::Url });
    }
    let (name, ports) = match text.split_once(':') {
        Some((name, ports)) => (name, Some(ports.parse()?)),
        None => (text, None),
    };
    if name == "*" {
        return Err(InvalidRule::Everything);
    }
    let below = name.strip_prefix("*.");
    let plain = below.unwrap_or(name);
    if plain.contains('*') {
        return Err(InvalidRule::Wildcard);
    }
    let name: DomainName = plain.parse()?;
    if name.is_loopback() {
        return Err(InvalidRule::Loopback);
    }
    if name.is_host() {
        return Err(InvalidRule::Host);
    }
    // As text, the rule of this name would be the one of the whole internet.
    if below.is_none() && name.as_str() == "public" {
        return Err(InvalidRule::Public);
    }
    let pattern = match below {
        Some(_) => Pattern::Below(name, any_sni),
        None if ports.is_none() => Pattern::Name(not_a_word(name)?, any_sni),
        None => Pattern::Name(name, any_sni),
    };
    Ok(Rule { pattern, ports: ports.unwrap_or_default() })
}

/// The name, if it has no other meaning on a command line. With ports, it is a name in any case.
fn not_a_word(name: DomainName) -> Result<DomainName, InvalidRule> {
    match name.as_str() {
        "all" | "none" | "open" => Err(InvalidRule::Word(name)),
        text if Preset::find(text).is_some() => Err(InvalidRule::Preset(name)),
        _ => Ok(name),
    }
}

impl Rule {
    /// The rule `public`.
    #[must_use]
    pub fn public() -> Self {
        Self { pattern: Pattern::Public, ports: Ports::all() }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, ports } = self;
        match pattern {
            Pattern::Name(name, _) => write!(f, "{name}")?,
            Pattern::Below(name, _) => write!(f, "*.{name}")?,
            Pattern::Network(network, _) => {
                let is_one = network.prefix_len() == network.max_prefix_len();
                let address = network.addr();
                let text = if is_one { address.to_string() } else { network.to_string() };
                match address.is_ipv6() && !ports.is_all() {
                    true => write!(f, "[{text}]")?,
                    false => write!(f, "{text}")?,
                }
            }
            Pattern::Host => write!(f, "host")?,
            Pattern::Public => return write!(f, "public"),
        }
        let needs_ports = match pattern {
            Pattern::Host => true,
            Pattern::Name(name, _) => not_a_word(name.clone()).is_err(),
            _ => false,
        };
        if needs_ports || !ports.is_all() {
            write!(f, ":{ports}")?;
        }
        match pattern {
            Pattern::Name(_, true) | Pattern::Below(_, true) => f.write_str(ANY_SNI),
            Pattern::Network(_, Transport::Udp) => f.write_str(UDP),
            _ => Ok(()),
        }
    }
}

impl serde::Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Rule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            serde::de::Error::custom(format_args!("in the rule {text:?}: {}", causes(&error)))
        })
    }
}

/// An error and its cause in one line.
fn causes(error: &InvalidRule) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "www.example.org",
            "www.example.org:443",
            "*.files.example:443,8443",
            "a.example:443/any-sni",
            "10.0.0.0/8",
            "10.0.0.0/8:5432",
            "1.1.1.1:53/udp",
            "2001:db8::/32",
            "[2001:db8::/32]:443",
            "[2001:db8::/32]:443/udp",
            "host:5432",
            "public",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for (text, canonical) in [
            ("[::ffff:10.0.0.0/104]:80", "10.0.0.0/8:80"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("Www.Example.org.", "www.example.org"),
            ("1.1.1.1/32:53", "1.1.1.1:53"),
            ("[2001:db8::1]:1-65535", "2001:db8::1"),
            ("pip:443", "pip:443"),
            ("open:1-65535", "open:1-65535"),
            ("*.pip", "*.pip"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn other_texts_are_no_rules() {
        use InvalidRule::*;
        for (text, why) in [
            ("", Name(InvalidName::Empty)),
            ("*", Everything),
            ("*.*.example", Wildcard),
            ("a.*.example", Wildcard),
            ("a*.example", Wildcard),
            ("host", Host),
            ("host:0", Ports(InvalidPorts)),
            ("host.internal:80", Host),
            ("public.", Public),
            ("Public", Public),
            ("localhost:80", Loopback),
            ("a.localhost", Loopback),
            ("127.0.0.1:80", Loopback),
            ("[::1]:80", Loopback),
            ("[::ffff:127.0.0.1]:80", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("0.0.0.0", Loopback),
            ("0.0.0.0/0", Everything),
            ("::/0", Everything),
            ("public:443", Public),
            ("10.0.0.1/8", Prefix("10.0.0.0/8".parse().unwrap())),
            ("a.example/udp", UdpName),
            ("10.0.0.0/8/any-sni", AnySniAddress),
            ("a.example:http", Ports(InvalidPorts)),
            ("10.0.0.0/8:", Ports(InvalidPorts)),
            ("[10.0.0.0/8]x", Ports(InvalidPorts)),
            ("127.1", Name(InvalidName::Address)),
            ("https://a.example", Url),
            ("http://a.example:80/x", Url),
            ("a.example/x/y", Url),
            ("a.example:443/sctp", Suffix),
            ("a.example/tcp", Suffix),
            ("a.example:443/tcp/any-sni", Suffix),
            ("1.1.1.1:53/tcp", Suffix),
            ("1.1.1.1/tcp", Suffix),
            ("10.0.0.0/8/tcp", Suffix),
            ("[2001:db8::/32]:443/sctp", Suffix),
            ("10.0.0.1/33", PrefixLength),
            ("10.0.0.0/33:80", PrefixLength),
            ("10.0.0.0/:80", PrefixLength),
            ("[2001:db8::/129]:443/udp", PrefixLength),
            ("2001:db8::/32:443", Brackets("[2001:db8::/32]:443".into())),
            ("host:80/udp", HostProtocol),
            ("host/udp", HostProtocol),
            ("Open", Word("open".parse().unwrap())),
            ("none.", Word("none".parse().unwrap())),
            ("all/any-sni", Word("all".parse().unwrap())),
            ("pip", Preset("pip".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[*a0-9.:/\\[\\]-]{0,24}(/udp|/any-sni)?") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
            }
        }
    }
}
