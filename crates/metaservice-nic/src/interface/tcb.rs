//! One connection: a transmission control block (RFC 9293, section 3.3.1) and its phase.
//!
//! ```text
//!  ACK, or
//!  call ─► HalfOpen ────────► Waiting ──accept──► Held ──release──► Delivering ─FIN acked─► Lingering
//!             │ too old,        │ not listening    │                   │ no progress          │ too long,
//!             │ displaced       ▼                  │ over and          ▼                      ▼ or over
//!             ▼               reset                ▼ released        reset                  gone
//!           gone                                 gone
//! ```
//!
//! It owns the deadlines of these phases. It never ends a connection that has an owner: a guest
//! that is frozen for hours finds its connections open. TCP's retransmission continues that long,
//! at most once a minute.

use std::time::Duration;

use smoltcp::{
    iface::{Context, SocketHandle, SocketSet},
    socket::{
        Socket as SocketKind,
        tcp::{
            CongestionControl, ConnectError, ListenError, RecvError, Socket, SocketBuffer, State,
        },
    },
    wire::{IpAddress, IpListenEndpoint, TcpSeqNumber},
};

use super::{
    acknowledgement::Acknowledgement,
    budget::Grant,
    flow::{AttemptId, Flow},
};
use crate::error::StreamError;

/// How long the guest may take to complete a handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection through the card may be silent before the card asks whether the guest's
/// end still exists. A guest that was restarted answers with a reset. One that is frozen does not
/// answer, and keeps its connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5 * 60);

/// How long the guest may take no byte of a dropped connection, before the rest is discarded.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long the guest may keep its own direction of a dropped connection open, once it has
/// everything. What it sends meanwhile is discarded. A reset at once could reach the guest before
/// it has read the answer.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    HalfOpen { deadline: Duration },
    Waiting,
    Held,
    Delivering { deadline: Duration, unacknowledged: usize },
    Lingering { deadline: Duration },
}

/// What [`Tcb::advance`] requests from the table of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advance {
    Nothing,
    /// The handshake is complete.
    Established,
    /// The connection can be removed.
    Gone,
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    Handshake,
    Delivery,
    Linger,
}

pub(super) struct Tcb {
    pub(super) flow: Flow,
    /// The attempt that became this connection, if it goes through the card.
    pub(super) attempt: Option<AttemptId>,
    pub(super) phase: Phase,
    pub(super) grant: Grant,
    /// The sequence number that the guest expects next.
    pub(super) expected: Option<TcpSeqNumber>,
    /// The data that is not acknowledged.
    pub(super) acknowledgement: Acknowledgement,
    /// How often in a row it wanted to be polled at once, and sent nothing.
    pub(super) retries: u32,
    /// When the connection gets its next turn, as in the table's timers.
    pub(super) due: Option<Duration>,
    /// Whether the connection is in the table's queue.
    pub(super) queued: bool,
    /// TCP is finished. Received data may still be unread.
    pub(super) over: bool,
    /// The guest has reset the connection.
    pub(super) reset: bool,
    shut_down: bool,
    /// The socket, alone in its set: smoltcp searches a set from its beginning for each segment,
    /// and the table finds the connection faster.
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Tcb {
    /// A socket that listens for the SYN of this flow only. A full segment has `segment` bytes. The
    /// table gets the connection when the handshake is complete.
    ///
    /// `spare` has the buffers of the grant. Without, they are new.
    pub(super) fn listen(
        flow: Flow,
        (grant, spare): (Grant, Option<Socket<'static>>),
        segment: usize,
        now: Duration,
    ) -> Result<Self, ListenError> {
        let mut tcb = Self::new(flow, (grant, spare), segment, now);
        let endpoint = IpListenEndpoint { addr: Some(flow.address.into()), port: flow.port };
        tcb.socket_mut().listen(endpoint)?;
        Ok(tcb)
    }

    /// A socket that connects to the guest, with buffers as for [`listen`](Self::listen).
    pub(super) fn call(
        flow: Flow,
        (grant, spare): (Grant, Option<Socket<'static>>),
        segment: usize,
        now: Duration,
        context: &mut Context,
    ) -> Result<Self, ConnectError> {
        let mut tcb = Self::new(flow, (grant, spare), segment, now);
        let (guest, own) = (IpAddress::from(flow.peer), IpAddress::from(flow.address));
        tcb.socket_mut().connect(context, (guest, flow.peer_port), (own, flow.port))?;
        Ok(tcb)
    }

    fn new(
        flow: Flow,
        (grant, spare): (Grant, Option<Socket<'static>>),
        segment: usize,
        now: Duration,
    ) -> Self {
        let buffer = |size: usize| SocketBuffer::new(vec![0; size]);
        let new = || Socket::new(buffer(grant.receive), buffer(grant.send));
        let mut socket = spare.unwrap_or_else(new);
        // `acknowledgement` decides how long an acknowledgement waits.
        socket.set_ack_delay(None);
        // Writers have buffers of their own, so data is sent at once.
        socket.set_nagle_enabled(false);
        // The link has one sender in each direction, and loses nothing.
        socket.set_congestion_control(CongestionControl::None);
        let keep_alive = Some(KEEP_ALIVE).filter(|_| flow.is_routed());
        socket.set_keep_alive(keep_alive.map(Into::into));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            flow,
            attempt: None,
            phase: Phase::HalfOpen { deadline: now + HANDSHAKE_TIMEOUT },
            grant,
            expected: None,
            acknowledgement: Acknowledgement::new(segment),
            retries: 0,
            due: None,
            queued: false,
            over: false,
            reset: false,
            shut_down: false,
            sockets,
            handle,
        }
    }

    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// Its sizes, and its socket for another connection.
    pub(super) fn into_spare(mut self) -> (Grant, Option<Socket<'static>>) {
        let socket = match self.sockets.remove(self.handle) {
            SocketKind::Tcp(socket) => Some(socket),
            #[allow(unreachable_patterns, reason = "other features of smoltcp have other sockets")]
            _ => None,
        };
        (self.grant, socket)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// A segment was sent.
    pub(super) fn spoke(&mut self) {
        let socket = self.socket();
        self.acknowledgement.heard(socket.recv_capacity() - socket.recv_queue());
    }

    /// How long it can be silent: as long as it has only an acknowledgement to send, which can
    /// wait.
    pub(super) fn silent_until(&self, now: Duration) -> Option<Duration> {
        let socket = self.socket();
        let quiet = socket.state() == State::Established && socket.send_queue() == 0;
        if quiet { self.acknowledgement.held_until(now) } else { None }
    }

    /// Whether it waits for its timer, with only an acknowledgement to send.
    pub(super) fn waits(&self) -> bool {
        let socket = self.socket();
        let quiet = socket.state() == State::Established && socket.send_queue() == 0;
        quiet && self.due.is_some() && self.acknowledgement.is_held()
    }

    /// The deadline of the phase. `None` for an aborted connection, whose reset waits only for
    /// room.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.phase {
            _ if self.socket().state() == State::Closed => None,
            Phase::HalfOpen { deadline }
            | Phase::Delivering { deadline, .. }
            | Phase::Lingering { deadline } => Some(deadline),
            Phase::Waiting | Phase::Held => None,
        }
    }

    /// The deadline that has passed, if any. Then the connection is aborted.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Expired> {
        if self.over || self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.abort();
        match self.phase {
            Phase::HalfOpen { .. } => Some(Expired::Handshake),
            Phase::Delivering { .. } => Some(Expired::Delivery),
            Phase::Lingering { .. } => Some(Expired::Linger),
            Phase::Waiting | Phase::Held => None,
        }
    }

    /// Whether the handshake is complete.
    pub(super) fn is_begun(&self) -> bool {
        !matches!(self.socket().state(), State::Listen | State::SynReceived)
    }

    /// Whether it waits for the guest's answer to its SYN.
    pub(super) fn calls(&self) -> bool {
        self.socket().state() == State::SynSent
    }

    /// Whether the guest has refused this connection to it.
    pub(super) fn is_refused(&self) -> bool {
        self.reset && matches!(self.phase, Phase::HalfOpen { .. })
    }

    pub(super) fn abort(&mut self) {
        self.socket_mut().abort();
    }

    /// Follows what TCP has done. `settled`: everything was sent that could be, also the
    /// acknowledgement of the guest's FIN.
    pub(super) fn advance(&mut self, now: Duration, settled: bool) -> Advance {
        let state = self.socket().state();
        let mut advance = Advance::Nothing;
        match self.phase {
            Phase::HalfOpen { .. } => match state {
                State::SynSent | State::SynReceived => return Advance::Nothing,
                State::Listen | State::Closed => return Advance::Gone,
                _ => {
                    self.phase = Phase::Waiting;
                    advance = Advance::Established;
                }
            },
            Phase::Waiting | Phase::Held => {}
            Phase::Delivering { unacknowledged, .. } => {
                self.discard();
                let left = self.socket().send_queue();
                if state == State::FinWait2 {
                    self.phase = Phase::Lingering { deadline: now + LINGER_TIMEOUT };
                } else if left < unacknowledged {
                    self.phase = Phase::delivering(now, left);
                }
            }
            Phase::Lingering { .. } => self.discard(),
        }
        // TIME-WAIT protects the next connection with the same ports from late segments of this
        // one. On this link no segment is reordered or lost. A guest that polls would soon have all
        // its connections in this state.
        let over = match state {
            State::TimeWait => settled,
            State::Closed => self.socket().remote_endpoint().is_none(),
            _ => false,
        };
        if over {
            self.over = true;
            if matches!(self.phase, Phase::Delivering { .. } | Phase::Lingering { .. }) {
                return Advance::Gone;
            }
        }
        advance
    }

    /// Drops the connection: what was written is delivered, then it ends.
    pub(super) fn release(&mut self, now: Duration) {
        self.socket_mut().close();
        self.discard();
        self.phase = Phase::delivering(now, self.socket().send_queue());
    }

    pub(super) fn shut_down(&mut self) {
        self.shut_down = true;
        self.socket_mut().close();
    }

    fn discard(&mut self) {
        let socket = self.socket_mut();
        while socket.recv_queue() > 0 && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
    }

    /// Gives received bytes to `take` until it takes less than it is given. `Ok(None)`: there are
    /// none yet. `Ok(Some(0))`: there will be no more.
    pub(super) fn read(
        &mut self,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Result<Option<usize>, StreamError> {
        let reset = self.reset;
        let socket = self.socket_mut();
        let mut total = 0;
        // At most twice: to the end of the ring, and from its beginning.
        while socket.recv_queue() > 0 {
            let result = socket.recv(|bytes| {
                let taken = take(bytes).min(bytes.len());
                (taken, (taken, bytes.len()))
            });
            match result {
                Ok((taken, offered)) => {
                    total += taken;
                    if taken < offered {
                        return Ok(Some(total));
                    }
                }
                Err(_) => break,
            }
        }
        if total > 0 {
            return Ok(Some(total));
        }
        match socket.recv(|_| (0, ())) {
            Ok(()) => Ok(None),
            Err(RecvError::Finished) => Ok(Some(0)),
            Err(RecvError::InvalidState) if reset => Err(StreamError::Reset),
            Err(RecvError::InvalidState) => Err(StreamError::Gone),
        }
    }

    /// Takes bytes to send. `Ok(None)`: there is no room yet.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<Option<usize>, StreamError> {
        if self.shut_down {
            return Err(StreamError::ShutDown);
        }
        let reset = self.reset;
        match self.socket_mut().send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(_) if reset => Err(StreamError::Reset),
            Err(_) => Err(StreamError::Gone),
        }
    }

    /// As [`write`](Self::write), with bytes that `fill` puts into the free part of the buffer, or
    /// the first piece of it. It returns how many.
    pub(super) fn fill(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<Option<usize>, StreamError> {
        if self.shut_down {
            return Err(StreamError::ShutDown);
        }
        let reset = self.reset;
        let filled = self.socket_mut().send(|room| {
            if room.is_empty() {
                return (0, None);
            }
            let most = room.len();
            let count = fill(room).min(most);
            (count, Some(count))
        });
        filled.map_err(|_| if reset { StreamError::Reset } else { StreamError::Gone })
    }

    /// Whether [`read`](Self::read) does not return `Ok(None)`.
    pub(super) fn is_readable(&self) -> bool {
        let socket = self.socket();
        socket.can_recv() || !socket.may_recv()
    }

    /// Whether [`write`](Self::write) does not return `Ok(None)`, and there is so much room that a
    /// wake is worth it.
    pub(super) fn is_writable(&self) -> bool {
        let socket = self.socket();
        !socket.may_send() || socket.send_queue() <= socket.send_capacity() / 2
    }
}

impl Phase {
    fn delivering(now: Duration, unacknowledged: usize) -> Self {
        Self::Delivering { deadline: now + DELIVERY_TIMEOUT, unacknowledged }
    }
}
