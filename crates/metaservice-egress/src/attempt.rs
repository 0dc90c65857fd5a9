//! What a guest wants to reach.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::name::{DomainName, InvalidName};

/// What a guest wants to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A name, whose addresses the host finds.
    Name(DomainName),
    /// An address.
    Address(IpAddr),
    /// The loopback interface of the host.
    Host,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An attempt of a guest: a target, a port and a protocol.
///
/// As text it is `NAME:PORT`, `ADDRESS:PORT` or `host:PORT`, with `/udp` for UDP. An IPv6 address
/// is in brackets.
///
/// ```
/// use metaservice_egress::{Attempt, Target, Transport};
///
/// let attempt: Attempt = "[2001:db8::1]:123/udp".parse()?;
/// assert_eq!(attempt.target, Target::Address("2001:db8::1".parse().unwrap()));
/// assert_eq!((attempt.port, attempt.transport), (123, Transport::Udp));
/// assert_eq!(attempt.to_string(), "[2001:db8::1]:123/udp");
/// # Ok::<(), metaservice_egress::InvalidAttempt>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The target.
    pub target: Target,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub transport: Transport,
}

/// Why a text is no attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAttempt {
    /// There is no port.
    #[error("write it as NAME:PORT or ADDRESS:PORT, with a port from 1 to 65535")]
    Port,
    /// The target is no name, and no address.
    #[error("it has no valid name or address")]
    Name(#[from] InvalidName),
}

impl FromStr for Attempt {
    type Err = InvalidAttempt;

    fn from_str(text: &str) -> Result<Self, InvalidAttempt> {
        let (text, transport) = match text.strip_suffix("/udp") {
            Some(text) => (text, Transport::Udp),
            None => (text, Transport::Tcp),
        };
        let (target, port) = text.rsplit_once(':').ok_or(InvalidAttempt::Port)?;
        // The parser of the standard library also takes a plus sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0);
        let port = port.ok_or(InvalidAttempt::Port)?;
        Ok(Self { target: target.parse()?, port, transport })
    }
}

impl From<DomainName> for Target {
    /// `host` and `host.internal` are the host, and no names of others.
    fn from(name: DomainName) -> Self {
        if name.is_host() { Self::Host } else { Self::Name(name) }
    }
}

impl FromStr for Target {
    type Err = InvalidAttempt;

    fn from_str(text: &str) -> Result<Self, InvalidAttempt> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Some(address) = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
            return Ok(Self::Address(address.into()));
        }
        // An address without brackets and without a port looks like one with a port.
        if text.contains(':') {
            return Err(InvalidAttempt::Port);
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Ok(text.parse::<DomainName>()?.into()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Host => write!(f, "host"),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.transport == Transport::Udp { "/udp" } else { "" };
        write!(f, "{}:{}{protocol}", self.target, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attempt_is_read_as_it_is_written() {
        for text in ["a.example:443", "1.1.1.1:53/udp", "[::1]:80", "host:5432", "host.a:1"] {
            assert_eq!(text.parse::<Attempt>().unwrap().to_string(), text);
        }
        assert_eq!("A.Example.:443".parse::<Attempt>().unwrap().to_string(), "a.example:443");
        assert_eq!("host:1".parse::<Attempt>().unwrap().target, Target::Host);
    }

    #[test]
    fn other_texts_are_no_attempts() {
        use InvalidAttempt::{Name, Port};
        for (text, why) in [
            ("", Port),
            ("a.example", Port),
            ("a.example:", Port),
            ("a.example:0", Port),
            ("a.example:+1", Port),
            ("a.example:https", Port),
            ("a.example:65536", Port),
            ("2001:db8::1", Port),
            ("2001:db8::1:443", Port),
            ("a.example:443/tcp", Port),
            (":443", Name(InvalidName::Empty)),
            ("127.1:443", Name(InvalidName::Address)),
            ("*.example:443", Name(InvalidName::Character)),
            ("[1.1.1.1]:443", Name(InvalidName::Character)),
            ("https://a.example:443", Port),
        ] {
            assert_eq!(text.parse::<Attempt>(), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(host|[a-z0-9.:\\[\\]-]{0,24}):[0-9]{1,5}(/udp)?") {
            if let Ok(attempt) = text.parse::<Attempt>() {
                prop_assert_eq!(attempt.to_string().parse::<Attempt>(), Ok(attempt));
            }
        }
    }
}
