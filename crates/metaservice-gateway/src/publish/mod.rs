//! Ports of the host that lead to ports of the guest.
//!
//! A client of the host connects to the host, and the card connects to the guest. The guest sees
//! the card's own address, because that of the client can mean something else in its network. The
//! policy is not asked: it is about what the guest begins.

mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use metaservice_egress::Transport;
use metaservice_nic::{Datagram, Gateway as Router, Network};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use self::udp::Clients;
use crate::config::Limits;

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication {
    /// Where the host listens. With port 0, the system chooses one.
    pub listen: SocketAddr,
    /// The port of the guest.
    pub guest_port: u16,
    /// The protocol.
    pub transport: Transport,
}

impl Publication {
    /// Publishes a port of the guest.
    #[must_use]
    pub fn new(listen: SocketAddr, guest_port: u16, transport: Transport) -> Self {
        Self { listen, guest_port, transport }
    }
}

/// Why a port is not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The host cannot listen there.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The gateway has ended.
    #[error("the network of the guest has ended")]
    Ended,
}

/// A publication that a [`Control`](crate::Control) asks for.
#[derive(Debug)]
pub(crate) struct Request {
    publication: Publication,
    answer: oneshot::Sender<Result<SocketAddr, PublishError>>,
}

/// The most requests that wait.
pub(crate) const REQUESTS: usize = 16;

impl Request {
    /// Sends a request, and waits for its answer.
    pub(crate) async fn send(
        requests: &mpsc::Sender<Self>,
        publication: Publication,
    ) -> Result<SocketAddr, PublishError> {
        let (answer, answered) = oneshot::channel();
        let request = Self { publication, answer };
        requests.send(request).await.map_err(|_| PublishError::Ended)?;
        answered.await.unwrap_or(Err(PublishError::Ended))
    }
}

/// What is published.
pub(crate) struct Publications {
    router: Arc<Router>,
    network: Network,
    /// The places for connections of all ports.
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    tasks: JoinSet<()>,
}

impl Publications {
    pub(crate) fn new(router: Arc<Router>, network: Network, limits: &Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.published));
        let clients = Arc::new(Clients::new(limits));
        Self { router, network, places, clients, tasks: JoinSet::new() }
    }

    /// Publishes a port, and answers.
    pub(crate) async fn take(&mut self, request: Request) {
        let Publication { listen, .. } = request.publication;
        let result = self.publish(request.publication).await;
        let result = result.map_err(|cause| PublishError::Bind { address: listen, cause });
        // A client that does not wait finds it among those that listen.
        let _ = request.answer.send(result);
    }

    async fn publish(&mut self, publication: Publication) -> io::Result<SocketAddr> {
        let Publication { listen, guest_port, transport } = publication;
        match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(listen).await?;
                let address = listener.local_addr()?;
                let target = tcp::Target {
                    router: Arc::clone(&self.router),
                    port: guest_port,
                    source: self.network.router,
                };
                self.tasks.spawn(tcp::listen(listener, target, Arc::clone(&self.places)));
                Ok(address)
            }
            Transport::Udp => {
                let socket = UdpSocket::bind(listen).await?;
                let address = socket.local_addr()?;
                let target = udp::Target {
                    sender: self.router.sender(),
                    port: guest_port,
                    network: self.network,
                };
                self.tasks.spawn(udp::listen(socket, target, Arc::clone(&self.clients)));
                Ok(address)
            }
        }
    }

    /// Takes a datagram of the guest that answers one of a client. Returns another one.
    pub(crate) fn answer(&self, datagram: Datagram) -> Option<Datagram> {
        if *datagram.destination.ip() != self.network.router {
            return Some(datagram);
        }
        self.clients.answer(datagram)
    }

    /// Waits for a task that has ended. Never completes without tasks.
    ///
    /// Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "a published port has failed"),
            None => std::future::pending().await,
        }
    }

    /// Ends all of them.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}
