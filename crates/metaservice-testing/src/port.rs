//! TCP ports for servers that must know their port before they start.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// All are below those that the kernel gives to outgoing connections.
const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// Returns a port on which no process listens. It belongs to this process until the process ends:
/// no other call in this network namespace returns it, although a server on it may end and start
/// again.
pub fn reserve() -> u16 {
    let begin = std::process::id();
    let ports = (0..COUNT).map(|step| FIRST + begin.wrapping_mul(31).wrapping_add(step) % COUNT);
    ports.map(|port| u16::try_from(port).unwrap()).find(is_reserved).expect("a port is free")
}

/// Whether the port is now reserved. A name in the abstract namespace has one owner, and goes with
/// its process.
fn is_reserved(port: &u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("metaservice-test-port-{port}")).unwrap();
    let Ok(reservation) = UnixListener::bind_addr(&name) else { return false };
    let is_free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    if is_free {
        std::mem::forget(reservation);
    }
    is_free
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_port_is_reserved_once_and_is_free() {
        let ports: HashSet<u16> = (0..50).map(|_| reserve()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            assert!(!is_reserved(&port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_of_another_server_is_not_reserved() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_reserved(&other.local_addr().unwrap().port()));
    }
}
