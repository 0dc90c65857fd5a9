//! The proxy of the host: connections to names by `CONNECT` (RFC 9110, 9.3.6).
//!
//! The proxy resolves the name. So the host cannot check the address that it connects to: the proxy
//! has to. A name that this host resolves too, to addresses that are not allowed, is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use metaservice_egress::DomainName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// The proxies of the host, for names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    https: Option<Server>,
    all: Option<Server>,
    except: Vec<Exception>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) port: u16,
    authorization: Option<String>,
}

/// Where a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(DomainName),
    Address(IpAddr),
}

/// A name that is reached without a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Within(DomainName),
}

/// Why a proxy of the environment cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// It is not an HTTP proxy.
    #[error("only http:// proxies can be used")]
    Scheme,
    /// It has no host, or a port that is none.
    #[error("the proxy is not of the form http://HOST:PORT")]
    Host,
}

impl Proxy {
    /// The proxies that `HTTPS_PROXY` (port 443) and `ALL_PROXY` (all ports) name, except for the
    /// names of `NO_PROXY`. `variable` gives the value of a variable. The lower-case spellings come
    /// first.
    ///
    /// ```
    /// use metaservice_gateway::Proxy;
    ///
    /// let proxy = Proxy::from_environment(|name| std::env::var(name).ok());
    /// # let _ = proxy;
    /// ```
    ///
    /// # Errors
    /// [`InvalidProxy`] with the variable that has an unusable value.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (&'static str, InvalidProxy)> {
        let value = |upper: &'static str| {
            let found = variable(&upper.to_ascii_lowercase()).or_else(|| variable(upper));
            found.filter(|text| !text.is_empty())
        };
        let server = |name| match value(name) {
            Some(text) => Server::parse(&text).map(Some).map_err(|error| (name, error)),
            None => Ok(None),
        };
        let except = value("NO_PROXY").unwrap_or_default();
        let except = except.split([',', ' ']).filter_map(Exception::parse).collect();
        Ok(Self { https: server("HTTPS_PROXY")?, all: server("ALL_PROXY")?, except })
    }

    /// The proxy for a name.
    pub(crate) fn of(&self, name: &DomainName, port: u16) -> Option<&Server> {
        let excepted = |exception: &Exception| match exception {
            Exception::All => true,
            Exception::Within(parent) => name == parent || name.is_below(parent),
        };
        if self.except.iter().any(excepted) {
            return None;
        }
        let https = self.https.as_ref().filter(|_| port == 443);
        https.or(self.all.as_ref())
    }
}

impl Exception {
    /// Addresses are never reached by a proxy: an exception of them is none.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text) {
            "*" => Some(Self::All),
            name => name.parse().ok().map(Self::Within),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(InvalidProxy::Scheme),
            None => text,
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(decode(user)), rest),
            None => (None, rest),
        };
        let address = |text: &str, port| match text.parse() {
            Ok(address) => Ok((Host::Address(address), port)),
            Err(_) => text.parse().map(|name| (Host::Name(name), port)),
        };
        let (host, port) = if let Ok(socket) = rest.parse::<SocketAddr>() {
            (Host::Address(socket.ip()), socket.port())
        } else {
            let inner = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let (host, port) = match rest.rsplit_once(':').filter(|_| inner.is_none()) {
                Some((host, port)) => (host, port.parse().map_err(|_| InvalidProxy::Host)?),
                None => (inner.unwrap_or(rest), 80),
            };
            address(host, port).map_err(|_| InvalidProxy::Host)?
        };
        let basic = |user: Vec<u8>| format!("Basic {}", STANDARD.encode(user));
        Ok(Self { host, port, authorization: user.map(basic) })
    }

    /// Asks for a connection to a name, over a connection to the proxy.
    ///
    /// # Errors
    /// When the proxy refuses, or its answer makes no sense.
    pub(crate) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        name: &DomainName,
        port: u16,
    ) -> io::Result<()> {
        let mut request = format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        // Byte by byte: what follows the head is the peer's. The kernel has it already.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_ANSWER {
                return Err(io::Error::other("the head of the proxy's answer is too large"));
            }
            head.push(stream.read_u8().await?);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let accepted = line.starts_with(b"HTTP/1.") && line.get(8..11) == Some(b" 20".as_slice());
        if accepted {
            return Ok(());
        }
        let line = String::from_utf8_lossy(line);
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("the proxy says {line:?}")))
    }
}

/// The bytes of a user and password, in which others are `%XX`.
fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
