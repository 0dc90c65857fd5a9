//! Relays between a shell's streams and its websocket.
//!
//! Owns four flows, as futures of one task around a shared [`AgentStream`]: messages to the host,
//! messages from the host, outputs, input. They never wait for each other. Otherwise a command that
//! does not read its input would block its own output.
//!
//! ```text
//!   running ── command ends, output sent ────────► exit sent, close ──── 10 s at most ─► over
//!      ├────── abort, or the agent stops ────────► killed, close, gone ─ 10 s at most ─► over
//!      └────── connection lost, silent or stuck ─► killed, gone ───────────────────────► over
//! ```

use std::pin::pin;

use bytes::Bytes;
use metaservice_protocol::shell::Stream;
use metaservice_protocol::{Ending, Reason};
use tokio::sync::watch;
use tokio::time::timeout;

use super::background_output::BackgroundOutputs;
use super::output;
use super::running::RunningShell;
use crate::client::stream::{
    AgentStream, CLOSE_TIMEOUT, MessageReceiver, ReceiveEnd, StreamControl, StreamSocket, close,
};
use crate::job::pending_replies::PendingReplies;
use crate::supervise::signal_command;
use crate::system::streams::{AgentEnd, AgentStreams, CommandInput, resize};

/// Relays one shell.
pub(super) struct Relay<'a> {
    pub(super) shell: &'a RunningShell,
    pub(super) background_outputs: &'a BackgroundOutputs,
    pub(super) pending_replies: &'a PendingReplies,
}

impl Relay<'_> {
    /// Relays until the shell is over and its supervisor is gone. The shell is killed when
    /// `stopping` becomes true.
    pub(super) async fn run(
        self,
        socket: StreamSocket,
        streams: AgentStreams,
        mut stopping: watch::Receiver<bool>,
    ) {
        let supervisor = &self.shell.supervisor;
        let AgentStreams { stdin, stdout, stderr } = streams;
        let outputs = [&stdout, &stderr].map(Clone::clone);
        let (stream, sink, source) = socket.split();
        let terminal = stdin.as_ref().and_then(CommandInput::terminal);
        let on_control = |control| match (control, &terminal) {
            (StreamControl::Resize(size), Some(terminal)) => resize(&**terminal, size),
            (StreamControl::Resize(_), None) => {}
            (StreamControl::Signal(number), terminal) => {
                signal_command(self.shell.state().main().as_ref(), terminal.as_ref(), number);
            }
        };
        let (end, ended) = watch::channel(false);
        let mut receiver = MessageReceiver::new(source, &stream, &on_control);
        let mut sending = pin!(stream.send(sink));
        let mut feeding = pin!(feed(stdin, &stream));
        let mut running = pin!(async {
            let gone = async {
                supervisor.gone().await;
                end.send_replace(true);
                self.pending_replies.begin()
            };
            let (pending, ..) = tokio::join!(
                gone,
                forward(Stream::Stdout, stdout, &stream, ended.clone()),
                forward(Stream::Stderr, stderr, &stream, ended.clone()),
            );
            pending
        });
        // The job's result is reported after the exit of this shell was sent.
        let (cut, _pending) = tokio::select! {
            pending = &mut running => (None, Some(pending)),
            cut = receiver.run() => (Some(cut), None),
            () = &mut sending => (Some(ReceiveEnd::Disconnected), None),
            _ = stopping.wait_for(|stopping| *stopping) => (Some(ReceiveEnd::Aborted), None),
            () = &mut feeding => (Some(ReceiveEnd::Disconnected), None),
        };
        if cut.is_some() {
            supervisor.end();
        }
        // A supervisor that was killed has written no ending.
        let ending = || self.shell.state().ending().unwrap_or(Ending::new(Reason::Lost));
        let ending = cut.is_none().then(ending);
        if cut.is_none() && terminal.is_none() {
            let outputs = outputs.into_iter().flatten();
            outputs.for_each(|output| self.background_outputs.take(output));
        }
        let detail = ending.as_ref().map(Ending::to_header).unwrap_or_default();
        stream.exit(ending.is_some_and(|ending| ending.is_success()), detail.as_bytes());
        let closing = async {
            if cut != Some(ReceiveEnd::Disconnected) {
                close(sending, &mut receiver).await;
            }
        };
        tokio::join!(closing, supervisor.gone());
    }
}

/// Sends the reason why there is no shell, and closes the stream.
pub(super) async fn fail(socket: StreamSocket, reason: Bytes, detail: &[u8]) {
    let (stream, sink, source) = socket.split();
    let room = stream.room(Stream::Stderr).await;
    stream.write(Stream::Stderr, reason.slice(..reason.len().min(room)));
    stream.exit(false, detail);
    let ignore = |_| {};
    let mut receiver = MessageReceiver::new(source, &stream, &ignore);
    let closing = async { tokio::join!(stream.send(sink), receiver.run()) };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Forwards one output to the host until it ends, or the command has ended and it is empty.
async fn forward(
    name: Stream,
    output: Option<AgentEnd>,
    stream: &AgentStream,
    mut ended: watch::Receiver<bool>,
) {
    let Some(output) = output else { return };
    loop {
        let room = stream.room(name).await;
        let block = output::read(&output, room, &mut ended).await;
        if block.is_empty() {
            break;
        }
        stream.write(name, block);
    }
    stream.finish(name);
}

/// Forwards the host's input to the command. Never completes: the end of the input ends nothing
/// else.
async fn feed(input: Option<CommandInput>, stream: &AgentStream) {
    let mut input = input;
    while let Some(block) = stream.read().await {
        let broken = match &input {
            Some(input) => !input.write(&block).await,
            // Acknowledged and discarded, so that the host does not wait.
            None => false,
        };
        if broken {
            input = None;
        }
    }
    if let Some(input) = input.take() {
        input.finish().await;
    }
    std::future::pending::<()>().await;
}
