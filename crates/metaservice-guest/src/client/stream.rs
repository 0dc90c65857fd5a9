//! A stream's websocket, for whatever is behind it: a command, a connection, a file.
//!
//! Owns the messages in both directions around a shared [`ShellSession`], and when to give a host up.
//! Reading and writing are futures that never wait for each other. What flows inside is the
//! business of those who use it.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use metaservice_private::lock;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use metaservice_protocol::Failure;
use metaservice_protocol::limits::SHELL_WRITE_TIMEOUT;
use metaservice_protocol::shell::{
    Event, Keepalive, Pulse, Role, ShellSession, Stream, StreamProtocol,
};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// How long the host may take to close after the stream's end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Why the messages from the host have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The host wants what is behind the stream gone.
    Aborted,
    /// The connection is of no more use.
    Gone,
}

/// What the host wants beside bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// The terminal has so many columns and rows.
    Resized(u16, u16),
    /// The command is to be sent this signal.
    Signalled(u8),
}

/// One end of a stream.
#[derive(Debug)]
pub(crate) struct Wire {
    state: Mutex<State>,
    outgoing: Notify,
    input: Notify,
    room: [Notify; 2],
}

#[derive(Debug)]
struct State {
    session: ShellSession,
    ping_due: bool,
    /// Once all messages are sent, the websocket is to be closed.
    closing: bool,
}

impl Wire {
    pub(crate) fn new(protocol: StreamProtocol) -> Self {
        let session = ShellSession::with_protocol(Role::Guest, protocol);
        Self {
            state: Mutex::new(State { session, ping_due: false, closing: false }),
            outgoing: Notify::new(),
            input: Notify::new(),
            room: [Notify::new(), Notify::new()],
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state, and looks whether there is something to send then.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.outgoing.notify_one();
        result
    }

    /// Says the end, with its detail.
    pub(crate) fn exit(&self, success: bool, detail: &[u8]) {
        self.update(|state| {
            state.session.exit(success, detail);
            state.closing = true;
        });
    }

    /// Says that it ends because of a failure.
    pub(crate) fn fail(&self, failure: &Failure) {
        self.exit(false, &failure.to_json());
    }

    /// Waits for room in an output, at least one byte. Can be dropped and called again.
    pub(crate) async fn room(&self, stream: Stream) -> usize {
        loop {
            let room = self.lock().session.writable(stream);
            if room > 0 {
                return room;
            }
            self.room[usize::from(stream == Stream::Stderr)].notified().await;
        }
    }

    /// Sends a block that there is room for.
    pub(crate) fn write(&self, stream: Stream, block: Bytes) {
        self.update(|state| {
            let fits = block.len() <= state.session.writable(stream);
            // After an exit nothing fits, and nothing is missed.
            if fits {
                state.session.write(stream, block);
            }
        });
    }

    pub(crate) fn finish(&self, stream: Stream) {
        self.update(|state| state.session.finish(stream));
    }

    /// The next block of the host's input, which is acknowledged by that; `None` at its end. Can be
    /// dropped and called again.
    pub(crate) async fn read(&self) -> Option<Bytes> {
        loop {
            let (block, ended) = self.update(|state| {
                let block = state.session.read(Stream::Stdin);
                (block, state.session.is_ended(Stream::Stdin))
            });
            if block.is_some() || ended {
                return block;
            }
            self.input.notified().await;
        }
    }

    /// Sends messages until the close has been sent, or the connection is gone or stuck.
    pub(crate) async fn send(&self, mut sink: SplitSink<Socket, Message>) {
        loop {
            let next = {
                let mut state = self.lock();
                if std::mem::take(&mut state.ping_due) {
                    Some(Message::Ping(Bytes::new()))
                } else {
                    let message = state.session.next_message().map(Message::Binary);
                    message.or_else(|| state.closing.then(normal_close))
                }
            };
            let last = matches!(next, Some(Message::Close(_)));
            // Small messages go out together: each write wakes the other end.
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
}

/// The messages from the host.
pub(crate) struct Reader<'a> {
    stream: SplitStream<Socket>,
    wire: &'a Wire,
    control: &'a (dyn Fn(Control) + Sync),
    keepalive: Keepalive,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        stream: SplitStream<Socket>,
        wire: &'a Wire,
        control: &'a (dyn Fn(Control) + Sync),
    ) -> Self {
        Self { stream, wire, control, keepalive: Keepalive::new(now()) }
    }

    /// Takes messages until there is a reason to stop. Can be dropped and called again.
    pub(crate) async fn run(&mut self) -> Over {
        loop {
            let deadline = self.keepalive.deadline().into();
            let message = match timeout_at(deadline, self.stream.next()).await {
                Ok(Some(Ok(Message::Close(_))) | None | Some(Err(_))) => return Over::Gone,
                Ok(Some(Ok(message))) => Some(message),
                Err(_elapsed) => None,
            };
            if message.is_some() {
                self.keepalive.heard(now());
            }
            // The host may be talking without a pause: pings come due all the same.
            match self.keepalive.pulse(now()) {
                Pulse::Quiet => {}
                Pulse::Ping => self.wire.update(|state| state.ping_due = true),
                Pulse::GiveUp => return Over::Gone,
            }
            if let Some(Message::Binary(message)) = message
                && let Some(over) = self.handle(&message)
            {
                return over;
            }
        }
    }

    fn handle(&self, message: &Bytes) -> Option<Over> {
        let event = self.wire.lock().session.handle(message);
        match event {
            Ok(Some(Event::Readable(_))) => self.wire.input.notify_one(),
            Ok(Some(Event::Writable(stream))) => {
                self.wire.room[usize::from(stream == Stream::Stderr)].notify_one();
            }
            Ok(Some(Event::Resized { columns, rows })) => {
                (self.control)(Control::Resized(columns, rows));
            }
            Ok(Some(Event::Signalled(number))) => (self.control)(Control::Signalled(number)),
            Ok(Some(Event::Aborted)) => return Some(Over::Aborted),
            Ok(Some(Event::Exited { .. }) | None) => {}
            Err(_violation) => return Some(Over::Gone),
        }
        None
    }
}

/// Sees the last messages out and the close in. What the host still sends is read all the
/// while: it may be what it waits for.
pub(crate) async fn goodbye(sending: impl Future<Output = ()>, reader: &mut Reader<'_>) {
    let closing = async {
        sending.await;
        sleep(CLOSE_TIMEOUT).await;
    };
    let closed = async { while reader.run().await == Over::Aborted {} };
    tokio::select! {
        () = closing => {}
        () = closed => {}
    }
}

/// The close of a stream that has ended in order. Without a status a peer of version 1 takes it for
/// an error.
fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
