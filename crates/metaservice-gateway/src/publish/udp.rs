//! Datagrams of clients to the guest, and back.
//!
//! The guest sees each client at a port of the card's address. The port is the client's as long as
//! datagrams come.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metaservice_nic::{Datagram, Network, Sender};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::config::Limits;

/// The ports by which the guest sees clients.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=59_999;
/// The largest datagram (RFC 768), in bytes.
const MAX_DATAGRAM: usize = 65_507;

/// Where the datagrams of a port go.
pub(super) struct Target {
    pub(super) sender: Sender,
    pub(super) port: u16,
    pub(super) network: Network,
}

/// The clients of all published ports.
pub(super) struct Clients {
    table: Mutex<Table<Arc<UdpSocket>>>,
}

impl Clients {
    pub(super) fn new(limits: &Limits) -> Self {
        let table = Table::new(limits.associations, limits.association_idle);
        Self { table: Mutex::new(table) }
    }

    /// Sends a datagram of the guest to the client whom it answers. Returns one that answers none.
    pub(super) fn answer(&self, datagram: Datagram) -> Option<Datagram> {
        let (to, from) = (datagram.destination.port(), datagram.source.port());
        let client = self.lock().answer(to, from, Instant::now());
        let Some((socket, client)) = client else { return Some(datagram) };
        // A datagram for which there is no room is dropped, as on any link.
        let _ = socket.try_send_to(&datagram.payload, client);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Table<Arc<UdpSocket>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes the datagrams of clients to the guest.
pub(super) async fn listen(socket: UdpSocket, target: Target, clients: Arc<Clients>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (count, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A client that is gone.
            Err(error) => {
                tracing::debug!(%error, "a datagram was lost");
                continue;
            }
        };
        let now = Instant::now();
        let Some(port) = clients.lock().port(&socket, client, target.port, now) else { continue };
        target.sender.send(Datagram {
            source: SocketAddrV4::new(target.network.router, port),
            destination: SocketAddrV4::new(target.network.guest, target.port),
            payload: buffer[..count].to_vec(),
        });
    }
}

/// Which port stands for which client, by value. `S` is the socket of a published port.
struct Table<S> {
    maximum: usize,
    idle: Duration,
    next: u16,
    by_port: HashMap<u16, Client<S>>,
    by_client: HashMap<(SocketAddr, u16), u16>,
}

struct Client<S> {
    socket: S,
    address: SocketAddr,
    guest_port: u16,
    used: Instant,
}

impl<S: Clone> Table<S> {
    fn new(maximum: usize, idle: Duration) -> Self {
        let next = *PORTS.start();
        Self { maximum, idle, next, by_port: HashMap::new(), by_client: HashMap::new() }
    }

    /// The port that stands for a client of a port of the guest. `None`: there are too many
    /// clients.
    fn port(
        &mut self,
        socket: &S,
        address: SocketAddr,
        guest_port: u16,
        now: Instant,
    ) -> Option<u16> {
        if let Some(port) = self.by_client.get(&(address, guest_port)) {
            self.by_port.get_mut(port)?.used = now;
            return Some(*port);
        }
        if self.by_port.len() >= self.maximum {
            self.forget_idle(now);
        }
        if self.by_port.len() >= self.maximum.min(PORTS.len()) {
            return None;
        }
        while self.by_port.contains_key(&self.next) {
            self.advance();
        }
        let port = self.next;
        self.advance();
        let socket = socket.clone();
        self.by_port.insert(port, Client { socket, address, guest_port, used: now });
        self.by_client.insert((address, guest_port), port);
        Some(port)
    }

    fn advance(&mut self) {
        self.next = if self.next == *PORTS.end() { *PORTS.start() } else { self.next + 1 };
    }

    fn forget_idle(&mut self, now: Instant) {
        let idle = self.idle;
        self.by_port.retain(|_, client| now.saturating_duration_since(client.used) < idle);
        let by_port = &self.by_port;
        self.by_client.retain(|_, port| by_port.contains_key(port));
    }

    /// The client for whom a port stands, if a datagram from this port of the guest answers it.
    fn answer(&mut self, port: u16, guest_port: u16, now: Instant) -> Option<(S, SocketAddr)> {
        let client =
            self.by_port.get_mut(&port).filter(|client| client.guest_port == guest_port)?;
        client.used = now;
        Some((client.socket.clone(), client.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    #[test]
    fn a_port_is_that_of_one_client_and_answers_only_its_own_guest_port() {
        let (mut table, now) = (Table::new(10, Duration::from_secs(60)), Instant::now());
        let first = table.port(&'a', client(1), 53, now).unwrap();
        assert_eq!(table.port(&'a', client(1), 53, now), Some(first));
        let other = table.port(&'b', client(1), 54, now).unwrap();
        assert_ne!(other, first);
        assert_eq!(table.answer(first, 53, now), Some(('a', client(1))));
        assert_eq!(table.answer(other, 54, now), Some(('b', client(1))));
        assert_eq!(table.answer(first, 54, now), None);
        assert_eq!(table.answer(1, 53, now), None);
    }

    #[test]
    fn clients_are_limited_and_idle_ones_make_room() {
        let (mut table, now) = (Table::new(2, Duration::from_secs(60)), Instant::now());
        let later = now + Duration::from_secs(60);
        let first = table.port(&'a', client(1), 53, now).unwrap();
        let second = table.port(&'a', client(2), 53, now).unwrap();
        assert_eq!(table.port(&'a', client(3), 53, now), None);
        table.answer(second, 53, later);
        let third = table.port(&'a', client(3), 53, later).unwrap();
        assert!(third != first && third != second);
        assert_eq!(table.answer(first, 53, later), None);
        assert_eq!(table.answer(second, 53, later), Some(('a', client(2))));
        assert_eq!((table.by_port.len(), table.by_client.len()), (2, 2));
    }
}
