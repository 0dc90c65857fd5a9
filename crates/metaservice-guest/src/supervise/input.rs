//! The standard input of a job, as far as the host feeds it.
//!
//! Owns the command's input and the count of the bytes that were taken for it. The supervisor has
//! both, so a byte is neither lost nor repeated when a connection or the agent ends. The agent
//! writes the id of an attach action into the state directory. The supervisor replies to the
//! action itself: its first line is the count, and the host sends the bytes after it.
//!
//! ```text
//!   open ── end of the input, all written ─► ended  ─┐
//!     └──── no process reads it ───────────► closed ─┴─► each stream gets `exit` at once
//! ```
//!
//! A stream that is cut, aborted or replaced by a newer one leaves the input open.

use std::pin::pin;

use bytes::{Buf, Bytes};
use metaservice_protocol::shell::Stream;
use metaservice_protocol::{ActionId, StreamFrom};
use tokio::sync::watch;

use super::command_signal::signal_command;
use super::order::Order;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::host::Host;
use crate::client::stream::{AgentStream, MessageReceiver, StreamControl, close};
use crate::diagnostics::{print, with_causes};
use crate::state::{StateDirectory, StateWatch};
use crate::system::streams::{AgentEnd, CommandInput, resize};

/// The bytes of an input that were taken, and those of them that are not written yet.
#[derive(Debug, Default)]
struct Intake {
    taken: u64,
    pending: Bytes,
    ended: bool,
    closed: bool,
}

impl Intake {
    /// Takes the next block. There is none pending.
    fn take(&mut self, block: Bytes) {
        self.taken += block.len() as u64;
        if !self.closed {
            self.pending = block;
        }
    }

    /// The first bytes that are pending were written.
    fn written(&mut self, count: usize) {
        self.pending.advance(count.min(self.pending.len()));
    }

    /// The input has ended, with `last` as the bytes that say so to the command.
    fn end(&mut self, last: Option<u8>) {
        self.ended = true;
        self.pending = last.map(|last| Bytes::copy_from_slice(&[last])).unwrap_or_default();
    }

    /// No process reads the input.
    fn close(&mut self) {
        self.closed = true;
        self.pending.clear();
    }

    /// Whether no more bytes are wanted.
    fn is_over(&self) -> bool {
        self.closed || self.ended && self.pending.is_empty()
    }
}

/// The input of a job's command.
#[derive(Debug)]
pub(super) struct Input {
    /// Dropped when the input is over. `None` for a terminal whose job has no input.
    end: Option<CommandInput>,
    terminal: Option<AgentEnd>,
    intake: Intake,
}

impl Input {
    pub(super) fn new(end: CommandInput) -> Self {
        Self { terminal: end.terminal(), end: Some(end), intake: Intake::default() }
    }

    /// Only the size and the signals of a terminal. Bytes are discarded.
    pub(super) fn without_bytes(terminal: AgentEnd) -> Self {
        Self { terminal: Some(terminal), end: None, intake: Intake::default() }
    }

    /// Writes what is pending. Cancel-safe.
    async fn write_pending(&mut self) {
        while let Some(end) = &self.end {
            if self.intake.pending.is_empty() {
                break;
            }
            match end.write_some(&self.intake.pending).await {
                Ok(count) => self.intake.written(count),
                Err(_) => self.intake.close(),
            }
        }
        if self.intake.is_over() {
            self.end = None;
        }
    }

    /// Takes bytes from a stream until the input is over.
    async fn take_from(&mut self, stream: &AgentStream) {
        loop {
            self.write_pending().await;
            if self.intake.is_over() {
                return;
            }
            match (stream.read().await, &self.end) {
                (Some(block), Some(_)) => self.intake.take(block),
                (None, Some(end)) => self.intake.end(end.end_character()),
                (Some(_), None) => {}
                (None, None) => self.intake.end(None),
            }
        }
    }
}

/// Feeds the input from each attach action that the agent hands on. Completes when the command has
/// ended and the stream is closed, or at once without an input.
pub(super) async fn feed(
    order: &Order,
    state: &StateDirectory,
    input: Option<Input>,
    mut ended: watch::Receiver<bool>,
) {
    let host = order.log.as_ref().and_then(|log| Host::parse(&log.host).ok());
    let (Some(mut input), Some(host), Ok(watch)) = (input, host, state.watch()) else { return };
    let client = Client::of_supervisor(host);
    let mut last = None;
    while !*ended.borrow_and_update() {
        let next = state.attach().filter(|id| last.as_ref() != Some(id));
        let Some(id) = next else {
            tokio::select! {
                () = watch.changed() => {}
                _ = ended.changed() => {}
                () = write_for_ever(&mut input) => {}
            }
            continue;
        };
        client.set_session(state.session().as_ref().map(|grant| grant.secret.as_str()));
        let stream = Attached { client: &client, id: &id, state };
        let served = tokio::select! {
            served = stream.serve(&mut input, ended.clone()) => served,
            () = replaced(state, &watch, &id) => Ok(()),
        };
        if let Err(error) = served {
            print(&format!("the reply to attach failed: {}", with_causes(&error)));
        }
        last = Some(id);
    }
}

/// Writes what is pending while there is no stream. Never completes.
async fn write_for_ever(input: &mut Input) {
    input.write_pending().await;
    std::future::pending::<()>().await;
}

/// Completes when there is a newer attach action.
async fn replaced(state: &StateDirectory, watch: &StateWatch, id: &ActionId) {
    while state.attach().as_ref() == Some(id) {
        watch.changed().await;
    }
}

/// The stream of one attach action.
struct Attached<'a> {
    client: &'a Client,
    id: &'a ActionId,
    state: &'a StateDirectory,
}

impl Attached<'_> {
    /// Serves the stream until it is cut, or the input is over and `exit` was sent.
    async fn serve(
        self,
        input: &mut Input,
        mut ended: watch::Receiver<bool>,
    ) -> Result<(), ClientError> {
        let (stream, sink, source) = self.client.stream(self.id).await?.split();
        let terminal = input.terminal.clone();
        let on_control = |control| match (control, &terminal) {
            (StreamControl::Resize(size), Some(terminal)) => resize(&**terminal, size),
            (StreamControl::Resize(_), None) => {}
            (StreamControl::Signal(number), terminal) => {
                signal_command(self.state.main().as_ref(), terminal.as_ref(), number);
            }
        };
        // A new stream has room for it.
        stream.write(Stream::Stdout, first_line(input.intake.taken));
        let mut receiver = MessageReceiver::new(source, &stream, &on_control);
        let mut sending = pin!(stream.send(sink));
        let over = tokio::select! {
            () = input.take_from(&stream) => true,
            _ = ended.wait_for(|ended| *ended) => true,
            _ = receiver.run() => false,
            () = &mut sending => false,
        };
        if over {
            stream.exit(true, &[]);
            close(sending, &mut receiver).await;
        }
        Ok(())
    }
}

fn first_line(from: u64) -> Bytes {
    let mut line = serde_json::to_vec(&StreamFrom { from }).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the sizes of blocks and writes are, each byte is written once and in order, and
        /// the count is that of the bytes that were taken.
        #[test]
        fn each_byte_is_written_once(
            blocks in proptest::collection::vec(1usize..50, 0..20),
            writes in proptest::collection::vec(1usize..20, 1..10),
            last in any::<Option<u8>>(),
        ) {
            let mut writes = writes.into_iter().cycle();
            let (mut intake, mut sent, mut written) = (Intake::default(), Vec::new(), Vec::new());
            let mut write = |intake: &mut Intake, written: &mut Vec<u8>| {
                while !intake.pending.is_empty() {
                    let count = writes.next().unwrap().min(intake.pending.len());
                    written.extend_from_slice(&intake.pending[..count]);
                    intake.written(count);
                }
            };
            for length in blocks {
                let block: Vec<u8> = (0..=255).cycle().skip(sent.len() % 256).take(length).collect();
                sent.extend_from_slice(&block);
                intake.take(block.into());
                prop_assert_eq!(intake.taken, sent.len() as u64);
                prop_assert!(!intake.is_over());
                write(&mut intake, &mut written);
            }
            intake.end(last);
            prop_assert_eq!(intake.is_over(), last.is_none());
            write(&mut intake, &mut written);
            prop_assert!(intake.is_over());
            prop_assert_eq!(intake.taken, sent.len() as u64);
            sent.extend(last);
            prop_assert_eq!(written, sent);
        }
    }

    #[test]
    fn an_input_without_a_reader_is_over() {
        let mut intake = Intake::default();
        intake.take(Bytes::from_static(b"abc"));
        intake.written(1);
        intake.close();
        assert!(intake.is_over() && intake.pending.is_empty());
        assert_eq!(intake.taken, 3);
    }
}
