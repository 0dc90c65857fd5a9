//! The task of a gateway, which owns all others.

use std::sync::Arc;

use metaservice_egress::Transport;
use metaservice_nic::{Attempt, Echo, Gateway as Router};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::config::Config;
use crate::control::Control;
use crate::echo::MAX_ECHOES;
use crate::gate::Gate;
use crate::log::{Denial, Log};
use crate::publish::{Publications, REQUESTS, Request};
use crate::shared::Shared;
use crate::udp::Associations;
use crate::{echo, resolver, tcp};

/// Connects a guest to what its policy allows.
///
/// Dropping it ends all connections of the guest, except those to the service of the card.
#[derive(Debug)]
pub struct Gateway {
    control: Control,
    denials: mpsc::Receiver<Denial>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Starts a gateway for a card.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    #[must_use = "a gateway that is dropped connects nothing"]
    pub fn start(router: Router, config: Config) -> Self {
        let Config { policy, network, limits, names, log, proxy, uplink } = config;
        let (log, denials) = Log::new(log);
        let gate = Gate::new(policy, limits, names, Instant::now().into_std());
        let shared = Arc::new(Shared::new(gate, log, limits, proxy, uplink));
        let (sender, requests) = mpsc::channel(REQUESTS);
        let control = Control { shared: Arc::clone(&shared), requests: sender };
        let (stop, stopped) = oneshot::channel();
        let router = Arc::new(router);
        let publications = Publications::new(Arc::clone(&router), network, &limits);
        let task = tokio::spawn(run(router, shared, publications, requests, stopped));
        Self { control, denials, stop: Some(stop), task }
    }

    /// A handle that reads and changes it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The next thing that is denied for the first time, or the next allowed name that does not
    /// resolve. `None`: the gateway has ended, and there are no more. At most 1024 of them are
    /// reported.
    ///
    /// Cancel-safe.
    pub async fn denial(&mut self) -> Option<Denial> {
        self.denials.recv().await
    }

    /// Ends all connections, and completes when each attempt is recorded.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // Its failure was reported already.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes what the guest sends, until the card or the gateway ends.
async fn run(
    router: Arc<Router>,
    shared: Arc<Shared>,
    mut publications: Publications,
    mut requests: mpsc::Receiver<Request>,
    mut stopped: oneshot::Receiver<()>,
) {
    let _end = EndOfLog(Arc::clone(&shared));
    let mut associations = Associations::new(Arc::clone(&shared), router.sender());
    let mut connections = Connections::new(Arc::clone(&shared));
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            attempt = router.attempt() => match attempt {
                Some(attempt) => connections.take(attempt),
                None => break,
            },
            datagram = router.receive() => match datagram {
                Some(datagram) => {
                    if let Some(datagram) = publications.answer(datagram) {
                        associations.take(datagram);
                    }
                }
                None => break,
            },
            echo = router.echo() => match echo {
                Some(echo) => connections.ping(echo),
                None => break,
            },
            rejected = router.rejected() => match rejected {
                Some(rejected) => shared.reject(rejected),
                None => break,
            },
            Some(request) = requests.recv() => publications.take(request).await,
            () = connections.ended() => {}
            () = associations.ended() => {}
            () = publications.ended() => {}
        }
    }
    connections.tasks.shutdown().await;
    associations.stop().await;
    publications.stop().await;
}

/// Ends the log, also when the task is aborted.
struct EndOfLog(Arc<Shared>);

impl Drop for EndOfLog {
    fn drop(&mut self) {
        self.0.log.end();
    }
}

/// The connections of a guest.
struct Connections {
    shared: Arc<Shared>,
    resolver: Arc<Semaphore>,
    echoes: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(shared: Arc<Shared>) -> Self {
        let resolver = Arc::new(Semaphore::new(shared.limits.resolver_connections));
        let echoes = Arc::new(Semaphore::new(MAX_ECHOES));
        Self { shared, resolver, echoes, tasks: JoinSet::new() }
    }

    /// Takes an attempt. One that is denied is refused without a task.
    fn take(&mut self, attempt: Attempt) {
        let shared = Arc::clone(&self.shared);
        if attempt.destination().port() == resolver::PORT {
            match Arc::clone(&self.resolver).try_acquire_owned() {
                Ok(place) => drop(self.tasks.spawn(resolver::serve(shared, attempt, place))),
                Err(_) => {
                    shared.refuse_resolver(attempt.destination());
                    attempt.refuse();
                }
            }
            return;
        }
        match shared.begin(attempt.destination(), Transport::Tcp) {
            Some(ticket) => drop(self.tasks.spawn(tcp::serve(ticket, attempt))),
            None => attempt.refuse(),
        }
    }

    /// Takes an echo request. One above the limit has no answer, as on a link without room.
    fn ping(&mut self, echo: Echo) {
        if let Ok(place) = Arc::clone(&self.echoes).try_acquire_owned() {
            self.tasks.spawn(echo::serve(Arc::clone(&self.shared), echo, place));
        } else {
            self.shared.log.count_unrecorded();
        }
    }

    /// Waits for a task that has ended. Never completes without tasks.
    async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "a connection has failed"),
            None => std::future::pending().await,
        }
    }
}
