//! Where the service is.
//!
//! Owns the reading of `HOST[:PORT]`. It refuses the name service: the agent is one static
//! file that runs in any guest, and the C library's resolver needs shared libraries at run
//! time. A host is therefore an address, or a name that `/etc/hosts` knows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::{fmt, fs};

use metaservice_protocol::limits::{SERVICE_ADDRESS, SERVICE_PORT};

/// The service's address, and its name in the `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    authority: String,
    address: SocketAddr,
}

/// A text that names no host that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// The part after the colon is not a port.
    #[error("'{0}' is not HOST[:PORT]")]
    Malformed(String),
    /// It is neither an address nor in `/etc/hosts`.
    #[error("'{0}' is neither an address nor a name in /etc/hosts (other names are not looked up)")]
    Unknown(String),
}

impl Default for Host {
    /// The link-local address at which every guest finds its service.
    fn default() -> Self {
        Self::at((SERVICE_ADDRESS, SERVICE_PORT).into())
    }
}

impl Host {
    /// The host at an address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let authority = match (address.port(), address.ip()) {
            (SERVICE_PORT, IpAddr::V6(ip)) => format!("[{ip}]"),
            (SERVICE_PORT, ip) => ip.to_string(),
            _ => address.to_string(),
        };
        Self { authority, address }
    }

    /// Reads `HOST[:PORT]`, where an IPv6 address with a port stands in brackets.
    ///
    /// # Errors
    /// [`InvalidHost`] when it is malformed or a name that `/etc/hosts` does not have.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        Self::parse_with(text, || fs::read_to_string(Path::new("/etc/hosts")).unwrap_or_default())
    }

    fn parse_with(text: &str, hosts: impl FnOnce() -> String) -> Result<Self, InvalidHost> {
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self::at((ip, SERVICE_PORT).into()));
        }
        let malformed = || InvalidHost::Malformed(text.to_owned());
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse().map_err(|_| malformed())?)
            }
            _ => (text, SERVICE_PORT),
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(name).parse::<IpAddr>() {
            return Ok(Self::at((ip, port).into()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(malformed());
        }
        let ip = look_up(&hosts(), name).ok_or_else(|| InvalidHost::Unknown(name.to_owned()))?;
        let authority =
            if port == SERVICE_PORT { name.to_owned() } else { format!("{name}:{port}") };
        Ok(Self { authority, address: (ip, port).into() })
    }

    /// What stands in the `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where to connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

fn look_up(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "# 10.0.0.1 no\n127.0.0.1 localhost here # there\n::1 ip6-localhost\n";

    fn parse(text: &str) -> Result<(String, String), InvalidHost> {
        let host = Host::parse_with(text, || HOSTS.to_owned())?;
        Ok((host.authority().to_owned(), host.address().to_string()))
    }

    #[test]
    fn addresses_and_known_names_are_hosts() {
        let is = |text, authority: &str, address: &str| {
            assert_eq!(parse(text), Ok((authority.to_owned(), address.to_owned())), "{text}");
        };
        is("169.254.169.254", "169.254.169.254", "169.254.169.254:80");
        is("127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080");
        is("::1", "[::1]", "[::1]:80");
        is("[::1]", "[::1]", "[::1]:80");
        is("[::1]:81", "[::1]:81", "[::1]:81");
        is("LocalHost:81", "LocalHost:81", "127.0.0.1:81");
        assert_eq!(Host::default(), Host::parse("169.254.169.254:80").unwrap());
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        assert_eq!(parse("no"), Err(InvalidHost::Unknown("no".into())));
        assert_eq!(parse("there"), Err(InvalidHost::Unknown("there".into())));
        for text in ["", ":80", "a:b", "a:70000", "a b", "http://a", "[::1", "a/b:80"] {
            assert_eq!(parse(text), Err(InvalidHost::Malformed(text.into())), "{text}");
        }
    }
}
