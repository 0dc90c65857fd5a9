//! The card without I/O and without a clock: frames in, frames out, the time as an argument.
//!
//! ```text
//!   receive(frame) ─► Ethernet ─┬─► ARP ──────────────────────────────┐
//!                               └─► IPv4 ─┬─► DHCP ───────────────────┤
//!                                         ├─► ICMP, UDP ─► smoltcp ───┼─► Outgoing
//!                                         ├─► TCP ─► table ─► smoltcp ┤
//!                                         └─► route ─► owner ─► answer┤
//!   poll(now) ──────────────────────────────── timers, windows, data ─┘
//! ```
//!
//! It owns each decision of the card, and the memory that a guest can use, which is limited by
//! [`Limits`](crate::Limits). It counts what it drops: [`DropReason`]. smoltcp does TCP. The table
//! of connections around it finds the connection of a segment, creates a socket for each complete
//! handshake (before that, it keeps only the SYN), and knows which connection has something to
//! send.

mod acknowledgement;
mod answer;
mod attempts;
mod budget;
mod calls;
mod device;
mod flow;
mod handshake;
mod owner;
mod queue;
mod receive;
mod reject;
mod replies;
mod route;
mod router;
mod segment;
mod share;
mod spares;
mod table;
mod tcb;

use std::time::Duration;

use smoltcp::{
    iface::{self, SocketSet},
    phy::ChecksumCapabilities,
    time::Instant,
    wire::EthernetAddress,
};

pub use self::flow::{AttemptId, ConnectionId};
pub use self::router::AttemptProgress;
use self::{
    device::{PacketDevice, instant},
    handshake::new_stack,
    router::Router,
    table::Table,
};
use crate::{
    address::{Mtu, SERVICE_ADDRESS},
    addresses::Addresses,
    config::Config,
    dhcp,
    error::StreamError,
    ethernet::Neighbours,
    frame::Outgoing,
    network::Network,
    stale::StaleConnection,
    statistics::{DropReason, Statistics},
};

/// The length of a frame with little or no content, in the buffer.
const SMALL_FRAME: usize = 64;

/// How many small frames a connection may send in a row before it waits for [`RETRY`].
const MAX_SMALL_FRAMES: u32 = 256;

/// How many bytes a connection sends in one turn.
const QUANTUM: usize = 128 * 1024;

/// When to poll a connection again that wants to be polled at once but sends nothing. The time
/// doubles this often, because a guest can bring a connection into this state and leave it there.
const RETRY: Duration = Duration::from_millis(10);
const RETRY_DOUBLINGS: u32 = 7;

/// The card, as a value.
///
/// Give it received frames ([`receive`](Self::receive)) with the time. Then [`poll`](Self::poll) it
/// and send what is [`Outgoing`]. Poll it again at its [`deadline`](Self::deadline), and after each
/// call that changes a connection. Times are counted from any moment, and never go backwards.
///
/// ```
/// use std::time::Duration;
/// use metaservice_nic::{Config, DropReason, frame::Outgoing, interface::Interface};
///
/// let (mut interface, mut outgoing) = (Interface::new(&Config::default(), 7), Outgoing::new());
/// interface.receive(b"not a frame", Duration::ZERO, &mut outgoing);
/// interface.poll(Duration::ZERO, &mut outgoing);
/// assert_eq!(interface.statistics().dropped.of(DropReason::Truncated), 1);
/// assert_eq!(interface.deadline(), None);
/// ```
pub struct Interface {
    mtu: Mtu,
    stack: iface::Interface,
    /// An empty set, for packets without a connection.
    no_sockets: SocketSet<'static>,
    checksums: ChecksumCapabilities,
    dhcp: dhcp::Server,
    neighbours: Neighbours,
    table: Table,
    addresses: Addresses,
    network: Option<Network>,
    router: Option<Router>,
    statistics: Statistics,
    /// Packets for the guest that had no room.
    unsent: u64,
    stale_connections: Vec<StaleConnection>,
}

impl Interface {
    /// A card without connections. `seed` varies the initial sequence numbers.
    #[must_use]
    pub fn new(config: &Config, seed: u64) -> Self {
        let mut outgoing = Outgoing::new();
        let mut neighbours = Neighbours::default();
        for stale in &config.stale_connections {
            neighbours.learn(stale.peer, EthernetAddress(stale.hardware));
        }
        if let Some((network, hardware)) =
            config.network.and_then(|network| Some((network, network.hardware?)))
        {
            neighbours.learn(network.guest, EthernetAddress(hardware));
        }
        let mut wire = PacketDevice {
            incoming: None,
            outgoing: &mut outgoing,
            neighbours: &neighbours,
            mtu: config.mtu,
        };
        let mut addresses = vec![SERVICE_ADDRESS];
        addresses.extend(config.network.map(|network| network.router));
        let mut stack = new_stack(seed, &addresses, &mut wire);
        if config.network.is_some() {
            // Its sockets have the addresses of the destinations that the guest connects to.
            stack.set_any_ip(true);
            // The table of routes is empty, and has room for one.
            let _ = stack.routes_mut().add_default_ipv4_route(SERVICE_ADDRESS);
        }
        Self {
            mtu: config.mtu,
            stack,
            no_sockets: SocketSet::new(Vec::new()),
            checksums: device::checksums(),
            dhcp: dhcp::Server::new(config),
            neighbours,
            table: Table::new(config, seed),
            addresses: Addresses(config.network),
            network: config.network,
            router: config.network.map(|network| Router::new(network, &config.limits)),
            statistics: Statistics::default(),
            unsent: 0,
            stale_connections: config.stale_connections.clone(),
        }
    }

    /// Takes a frame from the guest, without its length prefix. Replies that cannot wait are
    /// appended to `outgoing`. The others come with the next [`poll`](Self::poll).
    pub fn receive(&mut self, frame: &[u8], now: Duration, outgoing: &mut Outgoing) {
        self.statistics.frames_received += 1;
        self.statistics.bytes_received += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        if let Err(reason) = self.dispatch(frame, now, outgoing) {
            tracing::trace!(?reason, length = frame.len(), "frame dropped");
            self.statistics.dropped.count(reason);
        }
        self.count(outgoing);
    }

    /// Polls each connection that has something to send, or whose deadline has come, as far as
    /// there is room in `outgoing`.
    pub fn poll(&mut self, now: Duration, outgoing: &mut Outgoing) {
        for stale in self.stale_connections.drain(..) {
            stale.reset(&self.checksums, outgoing);
        }
        self.reply(outgoing);
        self.table.enqueue_due(now, &mut self.statistics);
        while !outgoing.is_full()
            && let Some(id) = self.table.dequeue()
        {
            self.serve(id, now, outgoing);
        }
        self.count(outgoing);
    }

    /// Gives one connection a turn.
    fn serve(&mut self, id: ConnectionId, now: Duration, outgoing: &mut Outgoing) {
        let Some(tcb) = self.table.get_mut(id) else {
            return;
        };
        let expired = tcb.expire(now);
        let begin = outgoing.mark();
        // Whether it sent everything, and not only its share.
        let mut settled = true;
        let mut small = 0;
        let silent = if expired.is_none() { tcb.silent_until(now) } else { None };
        while !tcb.over && silent.is_none() {
            if outgoing.is_full() || outgoing.mark() - begin >= QUANTUM {
                settled = false;
                break;
            }
            let before = outgoing.mark();
            let mut wire = PacketDevice {
                incoming: None,
                outgoing: &mut *outgoing,
                neighbours: &self.neighbours,
                mtu: self.mtu,
            };
            self.stack.poll_egress(instant(now), &mut wire, &mut tcb.sockets);
            let sent = outgoing.mark() - before;
            if sent > 0 {
                tcb.spoke();
            }
            if sent > SMALL_FRAME {
                tcb.retries = 0;
            }
            // A guest can bring a connection into a state in which it always has one more small
            // frame to send. Then it sends it later.
            small = if sent > SMALL_FRAME { 0 } else { small + 1 };
            if sent == 0 || small >= MAX_SMALL_FRAMES {
                break;
            }
        }
        let next = if tcb.over || !settled {
            None
        } else if silent.is_some() {
            silent
        } else {
            self.stack.poll_at(instant(now), &tcb.sockets).map(|at| {
                let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
                if at > now {
                    return at;
                }
                let retry = RETRY * (1 << tcb.retries);
                tcb.retries = (tcb.retries + 1).min(RETRY_DOUBLINGS);
                now + retry
            })
        };
        self.table.served(id, now, settled, next, expired, &mut self.statistics);
    }

    fn count(&mut self, outgoing: &Outgoing) {
        self.statistics.frames_sent = outgoing.frames();
        self.statistics.bytes_sent = outgoing.bytes();
        let refused = outgoing.refused() + self.unsent;
        self.statistics.dropped.set(DropReason::NoRoom, refused);
        self.statistics.open_connections = self.table.len();
        self.statistics.buffers = self.table.buffers();
        self.statistics.peak_connections = self.statistics.peak_connections.max(self.table.len());
    }

    /// When to [`poll`](Self::poll) next, if nothing else happens. Connections that wait for room
    /// in the outgoing queue do not count: poll when there is room.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.table.deadline()
    }

    /// Whether a connection waits for room in the outgoing queue, or for its first poll.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        self.table.has_backlog()
            || self.router.as_ref().is_some_and(|router| !router.replies.is_empty())
    }

    /// The statistics up to the last [`receive`](Self::receive) or [`poll`](Self::poll).
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Whether there is no connection and no handshake.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table.len() == 0
    }

    /// The next connection that the guest has opened, oldest first.
    pub fn accept(&mut self) -> Option<ConnectionId> {
        self.table.accept()
    }

    /// Whether [`accept`](Self::accept) has one.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.table.has_waiting()
    }

    /// Answers each SYN with a reset from now on, and resets the connections that wait to be
    /// accepted.
    pub fn stop_listening(&mut self) {
        self.table.stop_listening();
    }

    /// The guest's address and port, and the service's port.
    #[must_use]
    pub fn endpoints(&self, id: ConnectionId) -> Option<(std::net::SocketAddrV4, u16)> {
        let flow = self.table.get(id)?.flow;
        Some((std::net::SocketAddrV4::new(flow.peer, flow.peer_port), flow.port))
    }

    /// Gives received bytes to `take`, in order, until it takes less than it was given. `Ok(None)`:
    /// there are none yet. `Ok(Some(0))`: the guest has ended its direction.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the guest has reset the connection, after the bytes that came
    /// before. [`StreamError::Gone`] if there is no such connection.
    pub fn read(
        &mut self,
        id: ConnectionId,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Result<Option<usize>, StreamError> {
        let tcb = self.table.get_mut(id).ok_or(StreamError::Gone)?;
        let result = tcb.read(take)?;
        // The window may have become so much larger that the guest should get the new one.
        if !tcb.over && !tcb.waits() && result.is_some_and(|count| count > 0) {
            let now = Instant::ZERO;
            if self.stack.poll_at(now, &tcb.sockets).is_some_and(|at| at <= now) {
                self.table.enqueue(id);
            }
        }
        Ok(result)
    }

    /// Takes bytes to send, as many as fit. `Ok(None)`: there is no room. What was taken is
    /// delivered even after [`release`](Self::release).
    ///
    /// # Errors
    /// [`StreamError::ShutDown`] after [`shut_down`](Self::shut_down). [`StreamError::Reset`] and
    /// [`StreamError::Gone`] as for [`read`](Self::read).
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<Option<usize>, StreamError> {
        let tcb = self.table.get_mut(id).ok_or(StreamError::Gone)?;
        let result = tcb.write(bytes)?;
        if result.is_some() {
            self.table.enqueue(id);
        }
        Ok(result)
    }

    /// As [`write`](Self::write), with bytes that `fill` puts into the free part of the send
    /// buffer, or into the first piece of it. It returns how many. Without room, it is not called.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn fill(
        &mut self,
        id: ConnectionId,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<Option<usize>, StreamError> {
        let tcb = self.table.get_mut(id).ok_or(StreamError::Gone)?;
        let result = tcb.fill(fill)?;
        if result.is_some_and(|count| count > 0) {
            self.table.enqueue(id);
        }
        Ok(result)
    }

    /// Ends this direction of the connection, after everything that was written.
    pub fn shut_down(&mut self, id: ConnectionId) {
        if let Some(tcb) = self.table.get_mut(id) {
            tcb.shut_down();
            self.table.enqueue(id);
        }
    }

    /// Resets a connection. The guest sees it with the next [`poll`](Self::poll).
    pub fn reset(&mut self, id: ConnectionId) {
        self.table.abort(id);
    }

    /// Drops a connection. What was written is still delivered, what arrives is discarded, and the
    /// guest sees an orderly end. The id cannot be used any more.
    pub fn release(&mut self, id: ConnectionId, now: Duration) {
        self.table.release(id, now);
    }

    /// Whether [`read`](Self::read) does not return `Ok(None)`.
    #[must_use]
    pub fn is_readable(&self, id: ConnectionId) -> bool {
        self.table.get(id).is_none_or(tcb::Tcb::is_readable)
    }

    /// Whether [`write`](Self::write) does not return `Ok(None)`, and there is enough room.
    #[must_use]
    pub fn is_writable(&self, id: ConnectionId) -> bool {
        self.table.get(id).is_none_or(tcb::Tcb::is_writable)
    }

    /// The guest's ends of all connections that it may still have.
    pub fn connections(&self) -> impl Iterator<Item = StaleConnection> {
        self.table.iter().filter_map(|tcb| {
            Some(StaleConnection {
                hardware: self.neighbours.find(tcb.flow.peer).0,
                peer: tcb.flow.peer,
                peer_port: tcb.flow.peer_port,
                address: tcb.flow.address,
                port: tcb.flow.port,
                expected: tcb.expected?.0.cast_unsigned(),
            })
        })
    }

    /// The connections that had a turn since the last call. Some of them may be readable or
    /// writable now.
    pub fn take_changes(&mut self) -> impl Iterator<Item = ConnectionId> + use<> {
        self.table.take_changes()
    }
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Interface")
            .field("mtu", &self.mtu)
            .field("connections", &self.table.len())
            .finish_non_exhaustive()
    }
}
