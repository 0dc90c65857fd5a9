//! How the host resolves names and reaches addresses.
//!
//! It decides nothing. The gateway checks each address before it connects to it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use metaservice_egress::DomainName;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// The future of an operation of an [`Uplink`].
pub type UplinkFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// How the host resolves names and reaches addresses. Tests have their own.
pub trait Uplink: std::fmt::Debug + Send + Sync {
    /// The addresses of a name, in the order of preference.
    ///
    /// The future can be dropped.
    fn resolve(&self, name: &DomainName) -> UplinkFuture<'_, Vec<IpAddr>>;

    /// Connects to an address.
    ///
    /// The future can be dropped: the attempt ends.
    fn connect(&self, to: SocketAddr) -> UplinkFuture<'_, TcpStream>;

    /// A UDP socket that exchanges datagrams with this address only.
    fn associate(&self, to: SocketAddr) -> UplinkFuture<'_, UdpSocket>;

    /// Sends an echo request with a payload of this size, and completes when the answer has come.
    ///
    /// The future can be dropped.
    fn ping(&self, to: IpAddr, size: usize) -> UplinkFuture<'_, ()>;

    /// Whether an address is one of this host's own: a connection to it would reach the host.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// The header of an echo request (RFC 792, RFC 4443), in bytes.
const ECHO_HEADER: usize = 8;

/// The most names that are resolved at a time. Each of them occupies a thread.
const MAX_LOOKUPS: usize = 64;

/// The system's resolver (with `/etc/hosts` and search domains) and sockets.
#[derive(Debug)]
pub struct SystemUplink {
    /// A lookup that the gateway no longer waits for keeps its permit until its thread is free.
    lookups: Arc<Semaphore>,
}

impl Default for SystemUplink {
    /// At most 64 names are resolved at a time.
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Uplink for SystemUplink {
    fn resolve(&self, name: &DomainName) -> UplinkFuture<'_, Vec<IpAddr>> {
        let name = name.clone();
        Box::pin(async move {
            let permit = Arc::clone(&self.lookups).acquire_owned().await;
            let permit = permit.map_err(io::Error::other)?;
            let lookup = tokio::task::spawn_blocking(move || {
                let addresses = (name.as_str(), 0).to_socket_addrs();
                drop(permit);
                Ok(addresses?.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }

    fn connect(&self, to: SocketAddr) -> UplinkFuture<'_, TcpStream> {
        Box::pin(TcpStream::connect(to))
    }

    fn associate(&self, to: SocketAddr) -> UplinkFuture<'_, UdpSocket> {
        Box::pin(async move {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(to).await?;
            Ok(socket)
        })
    }

    fn ping(&self, to: IpAddr, size: usize) -> UplinkFuture<'_, ()> {
        Box::pin(async move {
            let (family, protocol, kind) = match to {
                IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
                IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
            };
            // The system writes the checksum and the identifier, and delivers only the answers.
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
            let socket = UdpSocket::from_std(socket.into())?;
            socket.connect((to, 0)).await?;
            let mut request = vec![0; ECHO_HEADER + size];
            (request[0], request[7]) = (kind, 1);
            socket.send(&request).await?;
            socket.recv(&mut request).await.map(drop)
        })
    }

    fn is_own(&self, address: IpAddr) -> bool {
        if address.is_loopback() {
            return true;
        }
        // The system lets a socket have the addresses of this host only. If it cannot tell, the
        // address counts as one of them.
        let foreign = [rustix::io::Errno::ADDRNOTAVAIL, rustix::io::Errno::AFNOSUPPORT];
        match std::net::UdpSocket::bind((address, 0)) {
            Ok(_) => true,
            Err(error) => {
                !rustix::io::Errno::from_io_error(&error).is_some_and(|it| foreign.contains(&it))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_of_the_host() {
        let uplink = SystemUplink::default();
        assert!(uplink.is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(uplink.is_own(Ipv4Addr::new(127, 9, 9, 9).into()));
        assert!(!uplink.is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    }

    #[tokio::test]
    async fn the_host_answers_itself_where_the_system_lets_it_ask() {
        let answered = SystemUplink::default().ping(Ipv4Addr::LOCALHOST.into(), 56).await;
        let denied = std::io::ErrorKind::PermissionDenied;
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
        // The default of the kernel: no group.
        match range.split_whitespace().collect::<Vec<_>>()[..] {
            ["1", "0"] => assert_eq!(answered.unwrap_err().kind(), denied),
            ["0", "2147483647"] => answered.unwrap(),
            _ => drop(answered),
        }
    }

    #[tokio::test]
    async fn the_system_resolves_its_own_names() {
        let uplink = SystemUplink::default();
        let addresses = uplink.resolve(&"localhost".parse().unwrap()).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }
}
