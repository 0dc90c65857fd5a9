//! Between a shell's processes and its websocket.
//!
//! Owns four flows that never wait for each other, as futures of one task around a shared
//! [`Session`]: messages in, messages out, outputs, input. If one waited for another, a command
//! that does not read its input would hold up its own output.
//!
//! ```text
//!   running ── command ends, outputs drained ──► exit sent ── close, 10 s at most ──► over
//!      ├────── abort, agent stops ──► tree told to die, close, 10 s at most, tree gone ─► over
//!      └────── connection gone, silent, stuck, or against the rules ──► tree told to die ─► over
//! ```

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use metaservice_protocol::limits::{SHELL_BLOCK, SHELL_WRITE_TIMEOUT};
use metaservice_protocol::shell::{Event, Keepalive, Pulse, Role, Session, Stream};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Running;
use super::terminal::{End, Ends, Input, read_now, resize};

/// How long the host may take to close after the shell's end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TcpStream>;

/// Why the messages from the host have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The host wants the shell killed.
    Aborted,
    /// The connection is of no more use.
    Gone,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    outgoing: Notify,
    input: Notify,
    room: [Notify; 2],
}

#[derive(Debug)]
struct State {
    session: Session,
    ping_due: bool,
    /// Once all messages are sent, the websocket is to be closed.
    closing: bool,
}

impl Shared {
    fn new() -> Self {
        let state = State { session: Session::new(Role::Guest), ping_due: false, closing: false };
        Self {
            state: Mutex::new(state),
            outgoing: Notify::new(),
            input: Notify::new(),
            room: [Notify::new(), Notify::new()],
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and looks whether there is something to send then.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.outgoing.notify_one();
        result
    }

    fn exit(&self, success: bool) {
        self.update(|state| {
            state.session.exit(success, &[]);
            state.closing = true;
        });
    }

    fn room(&self, stream: Stream) -> &Notify {
        &self.room[usize::from(stream == Stream::Stderr)]
    }
}

/// Carries a shell from its start to its end. It is killed when `stopping` becomes true.
pub(super) async fn run(
    socket: Socket,
    running: &Running,
    ends: Ends,
    mut stopping: watch::Receiver<bool>,
) {
    let Running { supervisor, folder } = running;
    let Ends { stdin, stdout, stderr } = ends;
    let shared = Shared::new();
    let (sink, stream) = socket.split();
    let terminal = stdin.as_ref().and_then(Input::terminal);
    let (end, ended) = watch::channel(false);
    let mut reader = Reader::new(stream, &shared, terminal);
    let mut writing = pin!(write(sink, &shared));
    let mut input = pin!(feed(stdin, &shared));
    let mut working = pin!(async {
        let gone = async {
            supervisor.gone().await;
            end.send_replace(true);
        };
        tokio::join!(
            gone,
            drain(Stream::Stdout, stdout, &shared, ended.clone()),
            drain(Stream::Stderr, stderr, &shared, ended.clone()),
        );
    });
    let over = tokio::select! {
        () = &mut working => None,
        over = reader.run() => Some(over),
        () = &mut writing => Some(Over::Gone),
        _ = stopping.wait_for(|stopping| *stopping) => Some(Over::Aborted),
        () = &mut input => Some(Over::Gone),
    };
    if over.is_some() {
        supervisor.end();
    }
    shared.exit(over.is_none() && folder.ending().is_some_and(|ending| ending.is_success()));
    let goodbye = async {
        if over == Some(Over::Gone) {
            return;
        }
        // What the host still sends is read all the while: it may be what it waits for.
        let closing = async {
            writing.await;
            sleep(CLOSE_TIMEOUT).await;
        };
        let closed = async { while reader.run().await == Over::Aborted {} };
        tokio::select! {
            () = closing => {}
            () = closed => {}
        }
    };
    tokio::join!(goodbye, supervisor.gone());
}

/// Says why there is no shell, and ends it.
pub(super) async fn refuse(socket: Socket, reason: Bytes) {
    let shared = Shared::new();
    let (sink, stream) = socket.split();
    shared.update(|state| {
        let room = state.session.writable(Stream::Stderr);
        let length = reason.len().min(room);
        state.session.write(Stream::Stderr, reason.slice(..length));
    });
    shared.exit(false);
    let mut reader = Reader::new(stream, &shared, None);
    let goodbye = async { tokio::join!(write(sink, &shared), reader.run()) };
    let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
}

/// The messages from the host.
struct Reader<'a> {
    stream: SplitStream<Socket>,
    shared: &'a Shared,
    terminal: Option<End>,
    keepalive: Keepalive,
}

impl<'a> Reader<'a> {
    fn new(stream: SplitStream<Socket>, shared: &'a Shared, terminal: Option<End>) -> Self {
        Self { stream, shared, terminal, keepalive: Keepalive::new(now()) }
    }

    /// Takes messages until there is a reason to stop. Can be dropped and called again.
    async fn run(&mut self) -> Over {
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
                Pulse::Ping => self.shared.update(|state| state.ping_due = true),
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
        let event = self.shared.lock().session.handle(message);
        match event {
            Ok(Some(Event::Readable(_))) => self.shared.input.notify_one(),
            Ok(Some(Event::Writable(stream))) => self.shared.room(stream).notify_one(),
            Ok(Some(Event::Resized { columns, rows })) => {
                if let Some(terminal) = &self.terminal {
                    resize(&**terminal, (columns, rows));
                }
            }
            Ok(Some(Event::Aborted)) => return Some(Over::Aborted),
            Ok(Some(Event::Exited { .. } | Event::Signalled(_)) | None) => {}
            Err(_violation) => return Some(Over::Gone),
        }
        None
    }
}

/// Sends messages until the close has been sent, or the connection is gone or stuck.
async fn write(mut sink: SplitSink<Socket, Message>, shared: &Shared) {
    loop {
        let next = {
            let mut state = shared.lock();
            if std::mem::take(&mut state.ping_due) {
                Some(Message::Ping(Bytes::new()))
            } else {
                let message = state.session.next_message().map(Message::Binary);
                message.or_else(|| state.closing.then_some(Message::Close(None)))
            }
        };
        let Some(message) = next else {
            shared.outgoing.notified().await;
            continue;
        };
        let last = matches!(message, Message::Close(_));
        let sent = timeout(SHELL_WRITE_TIMEOUT, sink.send(message)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// Moves one output into the session until it ends, or the command has and it is empty.
async fn drain(
    stream: Stream,
    end: Option<End>,
    shared: &Shared,
    mut ended: watch::Receiver<bool>,
) {
    let Some(end) = end else { return };
    let mut buffer = vec![0; SHELL_BLOCK];
    loop {
        let room = shared.lock().session.writable(stream);
        if room == 0 {
            shared.room(stream).notified().await;
            continue;
        }
        match read_some(&end, &mut buffer[..room], &mut ended).await {
            0 => break,
            count => {
                let block = Bytes::copy_from_slice(&buffer[..count]);
                shared.update(|state| state.session.write(stream, block));
            }
        }
    }
    shared.update(|state| state.session.finish(stream));
}

async fn read_some(end: &End, buffer: &mut [u8], ended: &mut watch::Receiver<bool>) -> usize {
    loop {
        // The order matters: what was written before the end is there by now.
        let last = *ended.borrow_and_update();
        if last {
            return read_now(&**end, buffer).unwrap_or(0);
        }
        tokio::select! {
            ready = end.readable() => {
                let Ok(mut ready) = ready else { return 0 };
                match ready.try_io(|end| read_now(end, buffer).map_err(Into::into)) {
                    Ok(result) => return result.unwrap_or(0),
                    Err(_would_block) => {}
                }
            }
            // Without a sender the command has ended as well.
            _ = ended.changed() => {}
        }
    }
}

/// Moves the host's input to the command. Never completes: an input that has ended, or that
/// nobody reads, ends nothing else.
async fn feed(input: Option<Input>, shared: &Shared) {
    let mut input = input;
    loop {
        let (block, ended) = shared.update(|state| {
            let block = state.session.read(Stream::Stdin);
            (block, state.session.is_ended(Stream::Stdin))
        });
        if let Some(block) = block {
            let broken = match &input {
                Some(input) => !input.write(&block).await,
                // Taken and dropped, so that the host can go on.
                None => false,
            };
            if broken {
                input = None;
            }
            continue;
        }
        if ended && let Some(input) = input.take() {
            input.finish().await;
        }
        shared.input.notified().await;
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
