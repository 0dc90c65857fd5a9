//! The listeners of `serve`.
//!
//! This module owns the syntax of `--listen`, and the listeners for TCP and vsock.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use metaservice::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_vsock::{VsockAddr, VsockListener, VsockStream};

/// An address on which `serve` listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Vsock(u32),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            ensure!(!path.is_empty(), "--listen unix: needs a path");
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("vsock:") {
            let port = port.parse().with_context(|| format!("{port:?} is no vsock port"))?;
            return Ok(Self::Vsock(port));
        }
        let address = text.parse().with_context(|| {
            format!("--listen {text:?} is neither IP:PORT nor unix:PATH nor vsock:PORT")
        })?;
        Ok(Self::Tcp(address))
    }
}

/// A TCP listener that sets TCP_NODELAY on each connection.
pub(crate) struct NoDelay(pub(crate) TcpListener);

impl Listener for NoDelay {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        (stream, address)
    }
}

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A vsock listener, for guests of any hypervisor that supports vsock.
pub(crate) struct Vsock(VsockListener);

impl Vsock {
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        VsockListener::bind(VsockAddr::new(tokio_vsock::VMADDR_CID_ANY, port)).map(Self)
    }
}

impl Listener for Vsock {
    type Stream = VsockStream;
    type Peer = VsockAddr;

    async fn accept(&mut self) -> (VsockStream, VsockAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // The connection was closed before it was accepted, or there are no free
                // descriptors. In both cases a later accept can succeed.
                Err(error) => {
                    tracing::warn!(%error, "cannot take a vsock connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms() {
        let tcp = "127.0.0.1:80".parse().unwrap();
        assert_eq!(Address::parse("127.0.0.1:80").unwrap(), Address::Tcp(tcp));
        assert!(matches!(Address::parse("[::1]:80").unwrap(), Address::Tcp(_)));
        assert_eq!(Address::parse("unix:/s").unwrap(), Address::Unix("/s".into()));
        assert_eq!(Address::parse("vsock:80").unwrap(), Address::Vsock(80));
        for wrong in ["", "80", "localhost:80", "unix:", "vsock:x", "127.0.0.1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
