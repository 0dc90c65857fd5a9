//! What the service listens on: TCP, vsock, the network card.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use metaservice::Listener;
use metaservice_nic::{Connection, Nic};
use tokio::net::{TcpListener, TcpStream};
use tokio_vsock::{VsockAddr, VsockListener, VsockStream};

/// A TCP listener whose connections send small messages at once.
pub(crate) struct NoDelay(pub(crate) TcpListener);

impl Listener for NoDelay {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// How long nothing is accepted after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A vsock listener for guests of any hypervisor that has vsock.
pub(crate) struct Vsock(VsockListener);

impl Vsock {
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        VsockListener::bind(VsockAddr::new(tokio_vsock::VMADDR_CID_ANY, port)).map(Self)
    }
}

impl Listener for Vsock {
    type Io = VsockStream;
    type Addr = VsockAddr;

    async fn accept(&mut self) -> (VsockStream, VsockAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // A connection that was gone before it was taken, and the next one may come; or there
                // are no descriptors, and it takes a while until there are.
                Err(error) => {
                    tracing::warn!(%error, "cannot take a vsock connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<VsockAddr> {
        self.0.local_addr()
    }
}

/// The service's end of a machine's network card.
pub(crate) struct Card(pub(crate) Nic);

impl Listener for Card {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        match self.0.accept().await {
            Some(connection) => (connection, ()),
            // The machine is gone; whoever started it knows.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
