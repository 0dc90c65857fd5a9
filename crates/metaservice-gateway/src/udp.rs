//! Associations of UDP: a port of the guest and a destination, with a socket of the host.
//!
//! Each has a task, which ends when no datagram has come for a while. Datagrams that come faster
//! than the task takes them are dropped, as on any link. The host fragments one that is larger than
//! the path to its peer, so the guest needs not know the MTU of that path.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;

use metaservice_egress::Transport;
use metaservice_egress::audit::Reason;
use metaservice_nic::{Datagram, Sender, Unreachable};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::dial::{DialError, failure};
use crate::resolver;
use crate::shared::{Shared, Ticket};

/// The most datagrams that wait for the task of an association.
const QUEUE: usize = 64;
/// The largest datagram (RFC 768), in bytes.
const MAX_DATAGRAM: usize = 65_507;

/// The guest's end, and the destination.
type Ends = (SocketAddrV4, SocketAddrV4);

/// The associations of a guest.
#[derive(Debug)]
pub(crate) struct Associations {
    shared: Arc<Shared>,
    sender: Sender,
    queues: HashMap<Ends, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
}

impl Associations {
    pub(crate) fn new(shared: Arc<Shared>, sender: Sender) -> Self {
        Self { shared, sender, queues: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Takes a datagram of the guest.
    pub(crate) fn take(&mut self, datagram: Datagram) {
        let Datagram { source, destination, payload } = datagram;
        if destination.port() == resolver::PORT {
            if let Some(payload) = self.shared.ask(&payload) {
                self.sender.send(Datagram { source: destination, destination: source, payload });
            }
            return;
        }
        let ends = (source, destination);
        let payload = match self.queues.get(&ends) {
            None => payload,
            Some(queue) => match queue.try_send(payload) {
                // The task has ended.
                Err(mpsc::error::TrySendError::Closed(payload)) => payload,
                _ => return,
            },
        };
        self.begin(ends, payload);
    }

    fn begin(&mut self, ends: Ends, payload: Vec<u8>) {
        self.queues.retain(|_, queue| !queue.is_closed());
        let Some(ticket) = self.shared.begin(ends.1, Transport::Udp) else {
            // At once, so that a client tries its other ways, for example TCP in place of QUIC.
            return self.sender.unreachable(ends.0, ends.1, Unreachable::Prohibited);
        };
        let (queue, datagrams) = mpsc::channel(QUEUE);
        let _ = queue.try_send(payload);
        self.queues.insert(ends, queue);
        self.tasks.spawn(serve(ticket, datagrams, self.sender.clone(), ends));
    }

    /// Waits for a task that has ended. Never completes without tasks.
    ///
    /// Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "an association has failed"),
            None => std::future::pending().await,
        }
    }

    /// Ends all of them.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(mut ticket: Ticket, datagrams: Receiver<Vec<u8>>, sender: Sender, ends: Ends) {
    let cut = ticket.take_cut();
    let run = async {
        match associate(&mut ticket).await {
            Ok(socket) => {
                let reason = exchange(&mut ticket, &socket, datagrams, &sender, ends).await;
                ticket.end(reason);
            }
            Err(error) => error.note(&mut ticket),
        }
    };
    tokio::select! {
        biased;
        () = cut => ticket.end(Reason::Policy),
        () = run => {}
    }
    let unreachable = match ticket.record.reason {
        Reason::Ended => return,
        Reason::Refused => Unreachable::Port,
        Reason::Unresolved | Reason::Unreachable => Unreachable::Host,
        _ => Unreachable::Prohibited,
    };
    sender.unreachable(ends.0, ends.1, unreachable);
}

/// Finds the peer, checks it, and opens a socket for it.
async fn associate(ticket: &mut Ticket) -> Result<UdpSocket, DialError> {
    let shared = Arc::clone(ticket.shared());
    let peer = shared.peer(&ticket.allowed).await?;
    let address = peer.address;
    ticket.connected(Some(peer)).map_err(|reason| DialError::NotAllowed { reason, address })?;
    let to = SocketAddr::new(address, ticket.allowed.attempt.port);
    shared.uplink.associate(to).await.map_err(|error| failure(&[error]))
}

/// Passes datagrams on, until none has come for a while.
async fn exchange(
    ticket: &mut Ticket,
    socket: &UdpSocket,
    mut datagrams: Receiver<Vec<u8>>,
    sender: &Sender,
    (guest, destination): Ends,
) -> Reason {
    let idle = ticket.shared().limits.association_idle;
    let mut timer = pin!(sleep(idle));
    loop {
        tokio::select! {
            Some(payload) = datagrams.recv() => match socket.send(&payload).await {
                Ok(count) => ticket.record.sent += count as u64,
                Err(error) if is_refusal(&error) => return Reason::Refused,
                // As a router does without room.
                Err(error) => tracing::debug!(%error, "a datagram was dropped"),
            },
            ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                match ready.map_or_else(Err, |ready| receive(socket, ready)) {
                    Ok(payload) => {
                        ticket.record.received += payload.len() as u64;
                        sender.send(Datagram { source: destination, destination: guest, payload });
                    }
                    Err(error) if is_refusal(&error) => return Reason::Refused,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => tracing::debug!(%error, "a datagram was lost"),
                }
            }
            () = &mut timer => return Reason::Ended,
        }
        timer.as_mut().reset(Instant::now() + idle);
    }
}

/// The next datagram, or the error that a router has sent in place of one.
fn receive(socket: &UdpSocket, ready: Ready) -> io::Result<Vec<u8>> {
    if ready.is_error() {
        let none = || io::Error::from(io::ErrorKind::WouldBlock);
        let error = socket.try_io(Interest::ERROR, || socket.take_error()?.ok_or_else(none));
        return Err(error.unwrap_or_else(|error| error));
    }
    // An association that waits has no buffer.
    let mut buffer = vec![0; MAX_DATAGRAM];
    let count = socket.try_recv(&mut buffer)?;
    buffer.truncate(count);
    buffer.shrink_to_fit();
    Ok(buffer)
}

/// Whether the peer's host has said that nothing listens there.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
