//! One end of a shell stream, as a state machine without I/O and without a clock.
//!
//! ```text
//!             write / finish / resize / abort / exit          handle(message)
//!                        │                                        │
//!                        ▼                                        ▼
//!                 ┌─────────────────────── ShellSession ───────────────────────┐
//!                 │  send windows      control frames        blocks to read     │
//!                 └──────┬──────────────────────────────────────────┬──────────┘
//!                        ▼                                          ▼
//!                 next_message()                          read() and the Events
//! ```
//!
//! Each of the three streams is `open`, then `ended` by an empty data message. The command is
//! `running`, then `exited`: the guest sends an [`exit`](ShellSession::exit) after both outputs
//! have ended, and nothing after it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::window::{ReceiveWindow, SendWindow, WindowExceeded};
use super::{Frame, Stream, StreamProtocol};
use crate::buffer::ChunkQueue;

/// Which end of a shell stream a [`ShellSession`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends stdin, sizes, signals and abort. Receives the outputs and the exit.
    Host,
    /// Receives stdin, sizes, signals and abort. Sends the outputs and the exit.
    Guest,
}

impl Role {
    const fn sends(self, stream: Stream) -> bool {
        matches!(self, Self::Host) == matches!(stream, Stream::Stdin)
    }
}

/// What a message from the peer has changed.
///
/// It is not `#[non_exhaustive]`: the driver of a session must handle each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is something to [`read`](ShellSession::read), or the stream has ended.
    Readable(Stream),
    /// There is more room to [`write`](ShellSession::write).
    Writable(Stream),
    /// At a guest: the size of the host's terminal has changed.
    Resized {
        /// Characters in a row.
        columns: u16,
        /// Rows of characters.
        rows: u16,
    },
    /// At a guest: the host wants the command killed.
    Aborted,
    /// At a host: the command has ended.
    Exited {
        /// Whether its exit status is 0.
        success: bool,
        /// Extension: the detail as JSON. Always empty in version 1.
        detail: Bytes,
    },
    /// Extension, at a guest: the host wants this signal sent to the command.
    Signalled(u8),
}

/// The peer has broken a rule that the session cannot ignore. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer ignores the flow control of {stream:?}")]
#[non_exhaustive]
pub struct Violation {
    /// The stream whose window was exceeded.
    pub stream: Stream,
    /// The size of the excess.
    #[source]
    pub source: WindowExceeded,
}

#[derive(Debug)]
struct Outgoing {
    window: SendWindow,
    /// All bytes that the peer has consumed.
    acknowledged: u64,
    finished: bool,
}

#[derive(Debug)]
struct Incoming {
    window: ReceiveWindow,
    blocks: ChunkQueue,
    ended: bool,
}

#[derive(Debug)]
enum Half {
    Outgoing(Outgoing),
    Incoming(Incoming),
}

/// One end of a shell stream.
///
/// Give it each message of the websocket ([`handle`](Self::handle)) and each local event
/// ([`write`](Self::write), [`finish`](Self::finish), [`read`](Self::read),
/// [`resize`](Self::resize), [`signal`](Self::signal), [`abort`](Self::abort),
/// [`exit`](Self::exit)). After each, send what [`next_message`](Self::next_message) returns, until
/// it returns `None`.
///
/// ```
/// use bytes::Bytes;
/// use metaservice_protocol::shell::{Event, Role, ShellSession, Stream};
///
/// let [mut host, mut guest] = [Role::Host, Role::Guest].map(ShellSession::new);
/// host.write(Stream::Stdin, Bytes::from_static(b"ls\n"));
/// let message = host.next_message().unwrap();
/// assert_eq!(guest.handle(&message), Ok(Some(Event::Readable(Stream::Stdin))));
/// assert_eq!(guest.read(Stream::Stdin).unwrap(), "ls\n");
/// ```
#[derive(Debug)]
pub struct ShellSession {
    role: Role,
    protocol: StreamProtocol,
    halves: [Half; 3],
    /// Bytes of each stream that were read and not acknowledged. Several reads share a message.
    acks: [u32; 3],
    frames: VecDeque<Frame>,
    size: Option<(u16, u16)>,
    exited: bool,
}

impl ShellSession {
    /// A new session of version 1.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self::with_protocol(role, StreamProtocol::V1)
    }

    /// A new session of the protocol that the handshake agreed on.
    #[must_use]
    pub fn with_protocol(role: Role, protocol: StreamProtocol) -> Self {
        let window = protocol.window();
        let half = |stream| {
            if role.sends(stream) {
                Half::Outgoing(Outgoing {
                    window: SendWindow::new(window),
                    acknowledged: 0,
                    finished: false,
                })
            } else {
                Half::Incoming(Incoming {
                    window: ReceiveWindow::new(window),
                    blocks: ChunkQueue::default(),
                    ended: false,
                })
            }
        };
        Self {
            role,
            protocol,
            halves: Stream::ALL.map(half),
            acks: [0; 3],
            frames: VecDeque::new(),
            size: None,
            exited: false,
        }
    }

    /// The version of the protocol.
    #[must_use]
    pub const fn protocol(&self) -> StreamProtocol {
        self.protocol
    }

    /// How many bytes [`write`](Self::write) accepts now. 0 if the window is full, if the stream
    /// has ended, or if this end does not send it.
    #[must_use]
    pub fn writable(&self, stream: Stream) -> usize {
        match self.half(stream) {
            Half::Outgoing(out) if !out.finished && !self.exited => {
                out.window.room().min(self.protocol.block())
            }
            _ => 0,
        }
    }

    /// Sends one block of a stream. An empty block sends nothing.
    ///
    /// # Panics
    /// If `block` is longer than [`writable`](Self::writable): a bug of the caller.
    pub fn write(&mut self, stream: Stream, block: Bytes) {
        assert!(block.len() <= self.writable(stream), "a block larger than what is writable");
        if let Half::Outgoing(out) = self.half_mut(stream)
            && !block.is_empty()
        {
            out.window.sent(block.len());
            self.frames.push_back(Frame::Data { stream, payload: block });
        }
    }

    /// Ends a stream that this end sends. A second call changes nothing.
    pub fn finish(&mut self, stream: Stream) {
        if self.exited {
            return;
        }
        if let Half::Outgoing(out) = self.half_mut(stream)
            && !out.finished
        {
            out.finished = true;
            self.frames.push_back(Frame::Data { stream, payload: Bytes::new() });
        }
    }

    /// Whether this end has [finished](Self::finish) the stream.
    #[must_use]
    pub fn is_finished(&self, stream: Stream) -> bool {
        matches!(self.half(stream), Half::Outgoing(out) if out.finished)
    }

    /// How many bytes of the stream the peer has consumed in total. 0 if this end receives it.
    #[must_use]
    pub fn acknowledged(&self, stream: Stream) -> u64 {
        match self.half(stream) {
            Half::Outgoing(out) => out.acknowledged,
            Half::Incoming(_) => 0,
        }
    }

    /// Takes the next received block of a stream, and acknowledges it.
    pub fn read(&mut self, stream: Stream) -> Option<Bytes> {
        let Half::Incoming(incoming) = self.half_mut(stream) else { return None };
        let block = incoming.blocks.pop()?;
        let consumed = incoming.window.consumed(block.len());
        let ended = incoming.ended;
        if !ended {
            // A peer that has ended its stream needs no acknowledgement.
            self.acks[usize::from(stream.number())] += consumed;
        }
        Some(block)
    }

    /// Whether the peer has ended the stream, and this end has read all of it.
    #[must_use]
    pub fn is_ended(&self, stream: Stream) -> bool {
        matches!(self.half(stream), Half::Incoming(i) if i.ended && i.blocks.is_empty())
    }

    /// At a host: sends a new size of the terminal. It replaces a size that was not sent yet.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        if self.role == Role::Host {
            self.size = Some((columns, rows));
        }
    }

    /// At a host: asks the guest to kill the command.
    pub fn abort(&mut self) {
        if self.role == Role::Host {
            self.frames.push_back(Frame::Abort);
        }
    }

    /// Extension, at a host: asks the guest to send a signal to the command. Version 1 cannot.
    pub fn signal(&mut self, number: u8) {
        if self.role == Role::Host && self.protocol == StreamProtocol::V2 {
            self.frames.push_back(Frame::Signal(number));
        }
    }

    /// At a guest: ends both outputs, and reports the end of the command. The `detail` is not sent
    /// in version 1, or if it is longer than a block.
    pub fn exit(&mut self, success: bool, detail: &[u8]) {
        if self.role == Role::Guest && !self.exited {
            self.finish(Stream::Stdout);
            self.finish(Stream::Stderr);
            self.exited = true;
            let fits = self.protocol == StreamProtocol::V2 && detail.len() <= self.protocol.block();
            let detail = Bytes::copy_from_slice(if fits { detail } else { &[] });
            self.frames.push_back(Frame::Exit { success, detail });
        }
    }

    /// The next message to send. Acknowledgements come first: they may be all that the peer waits
    /// for.
    pub fn next_message(&mut self) -> Option<Bytes> {
        for stream in Stream::ALL {
            let consumed = &mut self.acks[usize::from(stream.number())];
            if *consumed as usize >= self.protocol.acknowledge_after() {
                let consumed = std::mem::take(consumed);
                return Some(Frame::Ack { stream, consumed }.encode());
            }
        }
        if let Some((columns, rows)) = self.size.take() {
            return Some(Frame::Size { columns, rows }.encode());
        }
        self.frames.pop_front().map(|frame| frame.encode())
    }

    /// Handles a binary message of the peer.
    ///
    /// Returns what has changed. `None`: the protocol says to ignore the message. It is invalid,
    /// or a frame of the other role, or data after the end of a stream.
    ///
    /// # Errors
    /// [`Violation`] if the peer sends more than the window allows.
    pub fn handle(&mut self, message: &Bytes) -> Result<Option<Event>, Violation> {
        let Ok(frame) = Frame::decode(message, self.protocol) else { return Ok(None) };
        let guest = self.role == Role::Guest;
        match frame {
            Frame::Data { stream, payload } => self.handle_data(stream, payload),
            Frame::Ack { stream, consumed } => Ok(self.handle_ack(stream, consumed)),
            Frame::Size { columns, rows } if guest => Ok(Some(Event::Resized { columns, rows })),
            Frame::Abort if guest => Ok(Some(Event::Aborted)),
            Frame::Signal(number) if guest => Ok(Some(Event::Signalled(number))),
            Frame::Exit { success, detail } if !guest && !self.exited => {
                self.exited = true;
                // Nothing follows an exit, so it also ends the outputs.
                for half in &mut self.halves {
                    if let Half::Incoming(incoming) = half {
                        incoming.ended = true;
                    }
                }
                Ok(Some(Event::Exited { success, detail }))
            }
            Frame::Size { .. } | Frame::Abort | Frame::Exit { .. } | Frame::Signal(_) => Ok(None),
        }
    }

    fn handle_data(&mut self, stream: Stream, payload: Bytes) -> Result<Option<Event>, Violation> {
        let Half::Incoming(incoming) = self.half_mut(stream) else { return Ok(None) };
        if incoming.ended {
            return Ok(None);
        }
        if payload.is_empty() {
            incoming.ended = true;
        } else {
            let received = incoming.window.received(payload.len());
            received.map_err(|source| Violation { stream, source })?;
            incoming.blocks.push(payload);
        }
        Ok(Some(Event::Readable(stream)))
    }

    fn handle_ack(&mut self, stream: Stream, consumed: u32) -> Option<Event> {
        let Half::Outgoing(out) = self.half_mut(stream) else { return None };
        let before = out.window.in_flight();
        out.window.acknowledged(consumed);
        out.acknowledged += (before - out.window.in_flight()) as u64;
        Some(Event::Writable(stream))
    }

    fn half(&self, stream: Stream) -> &Half {
        &self.halves[usize::from(stream.number())]
    }

    fn half_mut(&mut self, stream: Stream) -> &mut Half {
        &mut self.halves[usize::from(stream.number())]
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
