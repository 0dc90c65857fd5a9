//! The address of the service.
//!
//! Owns the format `HOST[:PORT]`. It does not use DNS: the agent is one static file for any guest,
//! and the C library's resolver needs shared libraries at run time. So a host is an address, or a
//! name in `/etc/hosts`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::{fmt, fs};

use metaservice_protocol::limits::{SERVICE_ADDRESS, SERVICE_PORT};

/// The service's address, and its name in the `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    authority: String,
    address: SocketAddr,
}

/// Why a text is not a host that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHost {
    #[error("'{0}' is not HOST[:PORT]")]
    Malformed(String),
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
    fn at(address: SocketAddr) -> Self {
        let authority = match (address.port(), address.ip()) {
            (SERVICE_PORT, IpAddr::V6(ip)) => format!("[{ip}]"),
            (SERVICE_PORT, ip) => ip.to_string(),
            _ => address.to_string(),
        };
        Self { authority, address }
    }

    /// Reads `HOST[:PORT]`. An IPv6 address with a port is in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidHost> {
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

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The address to connect to.
    pub(crate) const fn address(&self) -> SocketAddr {
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
    fn anything_else_is_an_error_that_says_why() {
        assert_eq!(parse("no"), Err(InvalidHost::Unknown("no".into())));
        assert_eq!(parse("there"), Err(InvalidHost::Unknown("there".into())));
        for text in ["", ":80", "a:b", "a:70000", "a b", "http://a", "[::1", "a/b:80"] {
            assert_eq!(parse(text), Err(InvalidHost::Malformed(text.into())), "{text}");
        }
    }
}
