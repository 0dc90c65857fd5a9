//! The network card of a job's machine, and the tasks that drive it.

use std::io;
use std::os::unix::net::UnixStream;

use metaservice::Listener;
use metaservice_gateway::{Config as GatewayConfig, Control, Denial, Gateway};
use metaservice_nic::{
    Config, Connection, Limits, Nic, Observer, Pcap, StaleConnection, Statistics,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// The service's end of a card. Only the guest can connect.
#[derive(Debug)]
pub(crate) struct CardListener {
    nic: Nic,
    /// A connection that the guest has already.
    first: Option<Connection>,
}

impl Listener for CardListener {
    type Stream = Connection;
    type Peer = ();

    async fn accept(&mut self) -> (Connection, ()) {
        if let Some(first) = self.first.take() {
            return (first, ());
        }
        match self.nic.accept().await {
            Some(connection) => (connection, ()),
            // The machine has ended, which its owner sees.
            None => std::future::pending().await,
        }
    }
}

/// What a card is made of.
#[derive(Default)]
pub(crate) struct CardParts {
    pub(crate) limits: Limits,
    pub(crate) pcap: Option<Pcap>,
    /// The connections that a restored guest has.
    pub(crate) stale: Vec<StaleConnection>,
}

/// What a card's guest reaches besides the service. By default, nothing.
pub(crate) struct Routes {
    pub(crate) gateway: GatewayConfig,
    /// Gets what is denied for the first time.
    pub(crate) denied: Box<dyn Fn(Denial) + Send>,
}

impl Default for Routes {
    fn default() -> Self {
        Self { gateway: GatewayConfig::default(), denied: Box::new(|_| {}) }
    }
}

/// A card whose guest waits: its connections are accepted, and nothing answers them yet. What it
/// sends elsewhere waits too, within the limits of the card. Dropping it ends the card.
#[derive(Debug)]
pub(crate) struct WaitingCard {
    driving: AbortOnDropHandle<()>,
    drained: CancellationToken,
    listener: CardListener,
    router: metaservice_nic::Gateway,
    observer: Observer,
}

impl WaitingCard {
    /// Makes a card, and the machine's end of it.
    pub(crate) fn attach(parts: CardParts) -> io::Result<(Self, UnixStream)> {
        let (host, guest) = UnixStream::pair()?;
        host.set_nonblocking(true)?;
        let host = tokio::net::UnixStream::from_std(host)?;
        let CardParts { limits, pcap, stale } = parts;
        let config = Config::default().limits(limits).stale_connections(stale);
        let config = match pcap {
            Some(pcap) => config.pcap(pcap),
            None => config,
        };
        let (nic, router, driver) = metaservice_nic::attach_gateway(host, config);
        let observer = nic.observer();
        let (driving, drained) = spawn(async move {
            match driver.run().await {
                Ok(statistics) => tracing::debug!(?statistics, "the card has ended"),
                Err(error) => tracing::warn!(%error, "the card has failed"),
            }
        });
        let listener = CardListener { nic, first: None };
        Ok((Self { driving, drained, listener, router, observer }, guest))
    }

    /// Waits until the guest has connected to the service. Cancel safe.
    pub(crate) async fn connected(&mut self) {
        if self.listener.first.is_none() {
            let (connection, ()) = self.listener.accept().await;
            self.listener.first = Some(connection);
        }
    }

    /// Lets `serve` answer the guest's connections to the service, and routes the others.
    pub(crate) fn open<F>(
        self,
        routes: Routes,
        serve: impl FnOnce(CardListener) -> F,
    ) -> NetworkCard
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { driving, drained, listener, router, observer } = self;
        let (_serving, served) = spawn(serve(listener));
        let gateway = Gateway::start(router, routes.gateway);
        let control = gateway.control();
        let stop = CancellationToken::new();
        let (_routing, stopped) = spawn(route(gateway, routes.denied, stop.clone()));
        NetworkCard {
            _driving: driving,
            _serving,
            _routing,
            stop,
            stopped,
            drained,
            served,
            observer,
            gateway: control,
        }
    }
}

/// A card and its tasks. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct NetworkCard {
    _driving: AbortOnDropHandle<()>,
    _serving: AbortOnDropHandle<()>,
    _routing: AbortOnDropHandle<()>,
    stop: CancellationToken,
    stopped: CancellationToken,
    drained: CancellationToken,
    served: CancellationToken,
    observer: Observer,
    gateway: Control,
}

impl NetworkCard {
    /// Ends all connections of the guest, and completes when each of them is recorded.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.stopped.cancelled().await;
    }

    /// Reads and changes what the guest may connect to.
    pub(crate) fn gateway(&self) -> &Control {
        &self.gateway
    }

    /// Cancelled when the card has read everything that the machine sent before it ended.
    pub(crate) fn drained(&self) -> CancellationToken {
        self.drained.clone()
    }

    /// Cancelled when the service has answered the guest's last request: after its shutdown.
    pub(crate) fn served(&self) -> CancellationToken {
        self.served.clone()
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }
}

/// Owns a gateway, and reports what it denies.
async fn route(mut gateway: Gateway, denied: Box<dyn Fn(Denial) + Send>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            denial = gateway.denial() => match denial {
                Some(denial) => denied(denial),
                None => break,
            },
            () = stop.cancelled() => break,
        }
    }
    gateway.stop().await;
}

/// The statistics of a card, for clients.
pub(crate) fn describe(statistics: &Statistics) -> serde_json::Value {
    serde_json::json!({
        "framesReceived": statistics.frames_received,
        "bytesReceived": statistics.bytes_received,
        "framesSent": statistics.frames_sent,
        "bytesSent": statistics.bytes_sent,
        "framesDropped": statistics.dropped.total(),
        "connections": statistics.connections,
        "openConnections": statistics.open_connections,
        "peakConnections": statistics.peak_connections,
        "connectionsRefused": statistics.refused,
        "handshakesDisplaced": statistics.displaced,
        "handshakesExpired": statistics.handshakes_expired,
        "connectionsReset": statistics.resets,
        "connectionsAbandoned": statistics.abandoned,
    })
}

/// A task, and a token that is cancelled when the task ends, however it ends.
fn spawn(
    work: impl Future<Output = ()> + Send + 'static,
) -> (AbortOnDropHandle<()>, CancellationToken) {
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let work = async move {
        work.await;
        drop(guard);
    };
    (AbortOnDropHandle::new(tokio::spawn(work.in_current_span())), ended)
}
