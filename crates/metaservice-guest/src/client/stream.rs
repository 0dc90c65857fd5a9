//! The agent's end of a stream: a websocket that carries a command, a connection or a file.
//!
//! Owns the messages in both directions around a shared [`ShellSession`], and the decision that the
//! connection is lost. Sending and receiving are futures that never wait for each other. It does
//! not know what the stream carries.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use metaservice_private::lock;
use metaservice_protocol::limits::SHELL_WRITE_TIMEOUT;
use metaservice_protocol::shell::{
    Event, Keepalive, Pulse, Role, ShellSession, Stream, StreamProtocol,
};
use metaservice_protocol::{Failure, TerminalSize};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// How long the host may take to close the websocket after the end of the stream.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected websocket, and the stream protocol that was agreed on.
#[derive(Debug)]
pub(crate) struct StreamSocket {
    pub(super) socket: WebSocketStream<TcpStream>,
    pub(super) version: StreamProtocol,
}

impl StreamSocket {
    /// The agent's end of the stream, and the two directions of its websocket.
    pub(crate) fn split(self) -> (AgentStream, MessageSink, MessageSource) {
        let (sink, source) = self.socket.split();
        (AgentStream::new(self.version), MessageSink(sink), MessageSource(source))
    }
}

/// The direction to the host.
#[derive(Debug)]
pub(crate) struct MessageSink(SplitSink<WebSocketStream<TcpStream>, Message>);

/// The direction from the host.
#[derive(Debug)]
pub(crate) struct MessageSource(SplitStream<WebSocketStream<TcpStream>>);

/// Why the agent stopped to receive messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// The host aborts what the stream carries.
    Aborted,
    /// The connection was closed, is silent, or broke the protocol.
    Disconnected,
}

/// A request of the host on a stream, other than bytes for stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamControl {
    /// The terminal has a new size.
    Resize(TerminalSize),
    /// The command is to get this signal.
    Signal(u8),
}

/// The agent's end of a stream, shared by the futures that send, receive, read and write.
#[derive(Debug)]
pub(crate) struct AgentStream {
    shared: Mutex<SharedSession>,
    outgoing: Notify,
    input: Notify,
    room: [Notify; 2],
}

#[derive(Debug)]
struct SharedSession {
    session: ShellSession,
    ping_due: bool,
    /// Whether to close the websocket once all messages are sent.
    closing: bool,
}

impl AgentStream {
    fn new(version: StreamProtocol) -> Self {
        let session = ShellSession::with_protocol(Role::Guest, version);
        Self {
            shared: Mutex::new(SharedSession { session, ping_due: false, closing: false }),
            outgoing: Notify::new(),
            input: Notify::new(),
            room: [Notify::new(), Notify::new()],
        }
    }

    fn lock(&self) -> MutexGuard<'_, SharedSession> {
        lock(&self.shared)
    }

    /// Changes the session, and wakes the sender.
    fn update<T>(&self, change: impl FnOnce(&mut SharedSession) -> T) -> T {
        let result = change(&mut self.lock());
        self.outgoing.notify_one();
        result
    }

    /// Ends the stream with a status and its detail.
    pub(crate) fn exit(&self, success: bool, detail: &[u8]) {
        self.update(|shared| {
            shared.session.exit(success, detail);
            shared.closing = true;
        });
    }

    /// Ends the stream with a failure.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.exit(false, &failure.to_json());
    }

    /// Waits for room in an output, and returns how many bytes fit. Cancel-safe.
    pub(crate) async fn room(&self, stream: Stream) -> usize {
        loop {
            let room = self.lock().session.writable(stream);
            if room > 0 {
                return room;
            }
            self.room[usize::from(stream == Stream::Stderr)].notified().await;
        }
    }

    /// Writes a block to an output that has room for it.
    pub(crate) fn write(&self, stream: Stream, block: Bytes) {
        self.update(|shared| {
            // After an exit there is no room, and the block is not needed.
            if block.len() <= shared.session.writable(stream) {
                shared.session.write(stream, block);
            }
        });
    }

    /// Ends an output.
    pub(crate) fn finish(&self, stream: Stream) {
        self.update(|shared| shared.session.finish(stream));
    }

    /// The next block of the host's input; `None` at its end. Returning a block acknowledges it.
    /// Cancel-safe.
    pub(crate) async fn read(&self) -> Option<Bytes> {
        loop {
            let (block, ended) = self.update(|shared| {
                let block = shared.session.read(Stream::Stdin);
                (block, shared.session.is_ended(Stream::Stdin))
            });
            if block.is_some() || ended {
                return block;
            }
            self.input.notified().await;
        }
    }

    /// Sends messages until the close was sent, or the connection failed or hangs.
    pub(crate) async fn send(&self, sink: MessageSink) {
        let MessageSink(mut sink) = sink;
        loop {
            let next = self.next_message();
            let last = matches!(next, Some(Message::Close(_)));
            // Small messages are sent together, because each write wakes the peer.
            let progress = match next {
                Some(message) if !last => timeout(SHELL_WRITE_TIMEOUT, sink.feed(message)).await,
                Some(message) => timeout(SHELL_WRITE_TIMEOUT, sink.send(message)).await,
                None => {
                    let flushed = timeout(SHELL_WRITE_TIMEOUT, sink.flush()).await;
                    if matches!(flushed, Ok(Ok(()))) {
                        self.outgoing.notified().await;
                    }
                    flushed
                }
            };
            if last || !matches!(progress, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn next_message(&self) -> Option<Message> {
        let mut shared = self.lock();
        if std::mem::take(&mut shared.ping_due) {
            return Some(Message::Ping(Bytes::new()));
        }
        let message = shared.session.next_message().map(Message::Binary);
        message.or_else(|| shared.closing.then(normal_close))
    }
}

/// Receives the messages from the host.
pub(crate) struct MessageReceiver<'a> {
    source: MessageSource,
    stream: &'a AgentStream,
    on_control: &'a (dyn Fn(StreamControl) + Sync),
    keepalive: Keepalive,
}

impl<'a> MessageReceiver<'a> {
    pub(crate) fn new(
        source: MessageSource,
        stream: &'a AgentStream,
        on_control: &'a (dyn Fn(StreamControl) + Sync),
    ) -> Self {
        Self { source, stream, on_control, keepalive: Keepalive::new(now()) }
    }

    /// Receives messages until there is a reason to stop. Cancel-safe.
    pub(crate) async fn run(&mut self) -> ReceiveEnd {
        loop {
            let deadline = self.keepalive.deadline().into();
            let message = match timeout_at(deadline, self.source.0.next()).await {
                Ok(Some(Ok(Message::Close(_))) | None | Some(Err(_))) => {
                    return ReceiveEnd::Disconnected;
                }
                Ok(Some(Ok(message))) => Some(message),
                Err(_elapsed) => None,
            };
            if message.is_some() {
                self.keepalive.heard(now());
            }
            // A host that sends without a pause gets pings too.
            match self.keepalive.pulse(now()) {
                Pulse::Quiet => {}
                Pulse::Ping => self.stream.update(|shared| shared.ping_due = true),
                Pulse::GiveUp => return ReceiveEnd::Disconnected,
            }
            if let Some(Message::Binary(message)) = message
                && let Some(end) = self.handle(&message)
            {
                return end;
            }
        }
    }

    fn handle(&self, message: &Bytes) -> Option<ReceiveEnd> {
        let event = self.stream.lock().session.handle(message);
        match event {
            Ok(Some(Event::Readable(_))) => self.stream.input.notify_one(),
            Ok(Some(Event::Writable(stream))) => {
                self.stream.room[usize::from(stream == Stream::Stderr)].notify_one();
            }
            Ok(Some(Event::Resized { columns, rows })) => {
                (self.on_control)(StreamControl::Resize(TerminalSize { columns, rows }));
            }
            Ok(Some(Event::Signalled(number))) => {
                (self.on_control)(StreamControl::Signal(number));
            }
            Ok(Some(Event::Aborted)) => return Some(ReceiveEnd::Aborted),
            Ok(Some(Event::Exited { .. }) | None) => {}
            Err(_violation) => return Some(ReceiveEnd::Disconnected),
        }
        None
    }
}

/// Waits until the last messages and the close are exchanged.
///
/// Messages of the host are still received, because the host may wait until it has sent them.
pub(crate) async fn close(sending: impl Future<Output = ()>, receiver: &mut MessageReceiver<'_>) {
    let closing = async {
        sending.await;
        sleep(CLOSE_TIMEOUT).await;
    };
    let closed = async { while receiver.run().await == ReceiveEnd::Aborted {} };
    tokio::select! {
        () = closing => {}
        () = closed => {}
    }
}

/// The close of a stream that has ended normally. Without a status, a peer of version 1 takes the
/// close for an error.
fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
