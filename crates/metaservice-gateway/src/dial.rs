//! From an attempt that is allowed to a connection with its peer.
//!
//! Each address is checked, and the address that was checked is the one that the host connects to:
//! no name is resolved twice.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metaservice_egress::audit::Reason;
use metaservice_egress::{DomainName, Peer, Target};
use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::eyeballs;
use crate::gate::{Begun, allows_peer};
use crate::proxy::{Host, Server};
use crate::shared::{Shared, Ticket};

/// How long the host resolves a name that a proxy resolves too. Many hosts behind a proxy cannot.
const PROXIED_LOOKUP: Duration = Duration::from_secs(1);

/// A connection with its peer. `None`: the peer is behind a proxy.
pub(crate) type Dialled = (TcpStream, Option<Peer>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the name does not resolve")]
    Unresolved,
    #[error("no address of the name is allowed")]
    NotAllowed { reason: Reason, address: IpAddr },
    #[error("the peer refuses the connection")]
    Refused,
    #[error("the peer cannot be reached")]
    Unreachable,
    #[error("the host has no more sockets")]
    Exhausted,
}

impl DialError {
    /// Notes it in the record of its attempt.
    pub(crate) fn note(&self, ticket: &mut Ticket) {
        match self {
            Self::Unresolved => ticket.end(Reason::Unresolved),
            Self::Unreachable => ticket.end(Reason::Unreachable),
            Self::Refused => ticket.end(Reason::Refused),
            Self::Exhausted => ticket.deny(Reason::Limit),
            Self::NotAllowed { reason, address } => {
                ticket.record.address = Some(*address);
                ticket.deny(*reason);
            }
        }
    }
}

/// Connects, within the time limit.
pub(crate) async fn dial(shared: &Shared, begun: &Begun) -> Result<Dialled, DialError> {
    let dialled = async {
        let port = begun.attempt.port;
        if let Target::Name(name) = &begun.attempt.target
            && let Some(server) = shared.proxy.of(name, port)
        {
            // The proxy may be in a private network, and resolve its names. Where the host can
            // resolve the name too, it leads only to what is allowed.
            let known = tokio::time::timeout(PROXIED_LOOKUP, peers(shared, begun)).await;
            if let Ok(Err(error @ DialError::NotAllowed { .. })) = known {
                return Err(error);
            }
            return through(shared, server, name, port).await.map(|stream| (stream, None));
        }
        let peers = peers(shared, begun).await?;
        let connect = |peer: Peer| {
            let stream = shared.uplink.connect(SocketAddr::new(peer.address, port));
            async move { stream.await.map(|stream| (stream, Some(peer))) }
        };
        eyeballs::race(peers, connect).await.map_err(|errors| failure(&errors))
    };
    let timeout = tokio::time::timeout(shared.limits.dial, dialled);
    timeout.await.unwrap_or(Err(DialError::Unreachable))
}

/// The addresses that an attempt may lead to, in the order in which they are tried.
pub(crate) async fn peers(shared: &Shared, begun: &Begun) -> Result<Vec<Peer>, DialError> {
    let addresses = match &begun.attempt.target {
        Target::Name(name) => resolve(shared, name).await?,
        Target::Address(address) => vec![*address],
        // Most servers of a host listen there by IPv4, many of them not by IPv6.
        Target::Host => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    };
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in addresses {
        let peer = Peer { address, own: shared.uplink.is_own(address) };
        match allows_peer(&begun.policy, &begun.attempt, Some(peer)) {
            Ok(_) => allowed.push(peer),
            Err(reason) => refused = refused.or(Some((reason, address))),
        }
    }
    match refused {
        Some((reason, address)) if allowed.is_empty() => {
            Err(DialError::NotAllowed { reason, address })
        }
        _ if begun.attempt.target == Target::Host => Ok(allowed),
        _ => Ok(eyeballs::order(allowed, |peer| peer.address)),
    }
}

pub(crate) async fn resolve(shared: &Shared, name: &DomainName) -> Result<Vec<IpAddr>, DialError> {
    match shared.uplink.resolve(name).await {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(DialError::Unresolved),
        Err(error) => {
            tracing::debug!(%name, %error, "a name does not resolve");
            Err(DialError::Unresolved)
        }
    }
}

/// Connects to a name by a proxy of the host.
async fn through(
    shared: &Shared,
    server: &Server,
    name: &DomainName,
    port: u16,
) -> Result<TcpStream, DialError> {
    let addresses = match &server.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => resolve(shared, name).await.map_err(|_| DialError::Unreachable)?,
    };
    let connect = |address| shared.uplink.connect(SocketAddr::new(address, server.port));
    let ordered = eyeballs::order(addresses, |address| *address);
    // The guest must not take the proxy's absence for a peer that refuses.
    let mut stream = eyeballs::race(ordered, connect).await.map_err(|_| DialError::Unreachable)?;
    match server.tunnel(&mut stream, name, port).await {
        Ok(()) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Refused),
        Err(_) => Err(DialError::Unreachable),
    }
}

/// What all failures are together: refused, if one peer was there to refuse.
pub(crate) fn failure(errors: &[io::Error]) -> DialError {
    let any = |errno| errors.iter().any(|error| Errno::from_io_error(error) == Some(errno));
    if errors.iter().any(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        DialError::Refused
    } else if [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(any) {
        DialError::Exhausted
    } else {
        DialError::Unreachable
    }
}

impl Shared {
    /// As [`peers`], for an association, which has one peer.
    pub(crate) async fn peer(self: &Arc<Self>, begun: &Begun) -> Result<Peer, DialError> {
        let found = tokio::time::timeout(self.limits.dial, peers(self, begun));
        let peers = found.await.unwrap_or(Err(DialError::Unresolved))?;
        // Of two families, IPv4 is the one that a guest without IPv6 expects.
        let four = peers.iter().find(|peer| peer.address.is_ipv4());
        four.or(peers.first()).copied().ok_or(DialError::Unresolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_refuses_is_there() {
        let error = |errno: Errno| io::Error::from(errno);
        for (errnos, refused) in [
            (&[Errno::NETUNREACH, Errno::CONNREFUSED][..], true),
            (&[Errno::NETUNREACH, Errno::HOSTUNREACH], false),
            (&[], false),
        ] {
            let errors: Vec<_> = errnos.iter().map(|errno| error(*errno)).collect();
            assert_eq!(matches!(failure(&errors), DialError::Refused), refused);
        }
        assert!(matches!(failure(&[error(Errno::MFILE)]), DialError::Exhausted));
    }
}
