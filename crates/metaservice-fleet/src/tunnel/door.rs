//! The worker's end: takes connections to one attempt.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::{StreamExt, stream};
use metaservice_private::SocketPath;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::flow::{Flow, OVERHEAD, Side, WINDOW};
use super::frame::{Frame, Reason};
use super::nats::{NatsLink, incoming};
use super::pump::{Incoming, Link, Opening, Pump};
use super::subject;
use crate::moment::at;
use crate::name::JobId;
use crate::queue::Queue;

/// The connections that one job may have at once.
pub const MAX_CONNECTIONS: usize = 64;

/// The messages of one connection that may wait for its task: a window of the smallest ones, and
/// those without data.
const MAX_WAITING: usize = WINDOW / OVERHEAD + 64;

/// How long connections may take to end once the attempt is over, and again once it ends them.
const GRACE: Duration = Duration::from_secs(2);

/// Takes connections to a socket of this host, for one attempt of a job. Dropping it ends them:
/// then clients notice it within some seconds.
#[derive(Debug)]
pub struct Door {
    task: AbortOnDropHandle<()>,
    closing: CancellationToken,
    socket: watch::Sender<Option<PathBuf>>,
}

impl Door {
    /// Takes connections from now on. They wait for the [socket](Self::lead_to).
    #[must_use]
    pub fn open(queue: &Queue, id: &JobId, attempt: u32) -> Self {
        let (socket, target) = watch::channel(None);
        let closing = CancellationToken::new();
        let client = queue.client().clone();
        let (subject, closed) = (subject::attempt(id, attempt), closing.clone());
        let task = tokio::spawn(async move {
            match client.subscribe(subject).await {
                Ok(requests) => Doorkeeper::new(client, target).serve(requests, closed).await,
                Err(error) => tracing::warn!(%error, "clients cannot connect to a job"),
            }
        });
        Self { task: AbortOnDropHandle::new(task), closing, socket }
    }

    /// The socket to which connections lead: each connects to it once.
    pub fn lead_to(&self, socket: PathBuf) {
        self.socket.send_replace(Some(socket));
    }

    /// Takes no more connections, and waits until those that are there have ended: some seconds at
    /// most.
    pub async fn close(self) {
        self.closing.cancel();
        // It does not panic, and is not aborted.
        let _ = self.task.await;
    }
}

/// The connections of one attempt.
struct Doorkeeper {
    client: Client,
    target: watch::Receiver<Option<PathBuf>>,
    over: CancellationToken,
    /// By name.
    known: HashMap<String, mpsc::Sender<Incoming>>,
    connections: JoinSet<()>,
}

impl Doorkeeper {
    fn new(client: Client, target: watch::Receiver<Option<PathBuf>>) -> Self {
        let over = CancellationToken::new();
        Self { client, target, over, known: HashMap::new(), connections: JoinSet::new() }
    }

    async fn serve(mut self, mut requests: Subscriber, closing: CancellationToken) {
        let mut deadline = None;
        loop {
            tokio::select! {
                message = requests.next() => match message {
                    Some(message) => self.take(message, deadline.is_some()).await,
                    None => return,
                },
                Some(_) = self.connections.join_next() => {
                    self.known.retain(|_, sender| !sender.is_closed());
                }
                () = closing.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + GRACE);
                }
                () = at(deadline) => {
                    if self.over.is_cancelled() {
                        return;
                    }
                    self.over.cancel();
                    deadline = Some(Instant::now() + GRACE);
                }
            }
            if deadline.is_some() && self.connections.is_empty() {
                return;
            }
        }
    }

    /// Gives a message to its connection. Never waits for one.
    async fn take(&mut self, message: Message, is_closing: bool) {
        let to = message.subject.clone();
        let Some(name) = subject::name(&to).map(ToOwned::to_owned) else { return };
        let reply = message.reply.clone();
        let is_open = matches!(Frame::decode(&message.payload), Ok((0, Frame::Open)));
        let incoming = incoming(message);
        if let Some(known) = self.known.get(&name) {
            if known.try_send(incoming).is_err() {
                // It is over, or its client ignores the window.
                self.known.remove(&name);
            }
            return;
        }
        let reply = reply.filter(|reply| subject::is_inbox(reply));
        let (Some(reply), Incoming::Message(message)) = (reply, incoming) else { return };
        let link = NatsLink { client: self.client.clone(), to: reply, reply: to };
        let refusal = match Frame::decode(&message) {
            Ok((_, Frame::Reset(_))) => return,
            Err(Reason::Version) => Reason::Version,
            _ if is_closing => Reason::Ended,
            _ if !is_open => Reason::Lost,
            _ if self.connections.len() >= MAX_CONNECTIONS => Reason::TooMany,
            _ => return self.begin(name, link, message),
        };
        refuse(link, refusal).await;
    }

    fn begin(&mut self, name: String, link: NatsLink, first: bytes::Bytes) {
        let (sender, mut receiver) = mpsc::channel(MAX_WAITING);
        // It has room for the first message.
        let _ = sender.try_send(Incoming::Message(first));
        self.known.insert(name, sender);
        let (mut target, over) = (self.target.clone(), self.over.clone());
        self.connections.spawn(async move {
            let messages = stream::poll_fn(move |context| receiver.poll_recv(context));
            let connecting = async move {
                let known = target.wait_for(Option::is_some).await.map(|path| path.clone());
                let path = known.ok().flatten().ok_or(io::ErrorKind::NotConnected)?;
                UnixStream::connect(SocketPath::of(&path)?.as_path()).await
            };
            let pump = Pump::new(Flow::new(Side::Worker), &link, messages, &over);
            if let Err(reason) = pump.run(connecting, Opening::Tell).await {
                tracing::debug!(%reason, "a connection to a job ended");
            }
        });
    }
}

/// Says no. The connection has no other message of this side.
async fn refuse(link: NatsLink, reason: Reason) {
    // Without a server, no client can hear it.
    let _ = link.send(Frame::Reset(reason).encode(0)).await;
}
