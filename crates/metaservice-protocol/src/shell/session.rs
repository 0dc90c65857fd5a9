//! The state of one shell, seen from one end, without I/O and without a clock.
//!
//! ```text
//!             write / finish / resize / abort / exit          handle(message)
//!                        │                                        │
//!                        ▼                                        ▼
//!                 ┌────────────────────────── Session ─────────────────────────┐
//!                 │  send windows      control frames       blocks to be read   │
//!                 └──────┬──────────────────────────────────────────┬──────────┘
//!                        ▼                                          ▼
//!                 next_message()                          read() and the Events
//! ```
//!
//! A stream runs `open → ended`, in each direction by an empty data message. The
//! shell runs `running → exited`: the guest may say [`exit`](Session::exit) once both
//! of its outputs are finished, and nothing follows it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::chunks::Chunks;

use super::{Dialect, Frame, InvalidFrame, ReceiveWindow, SendWindow, Stream, WindowExceeded};

/// Which end of a shell a [`Session`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends stdin, sizes and abort; receives the outputs and the exit.
    Host,
    /// Receives stdin, sizes and abort; sends the outputs and the exit.
    Guest,
}

impl Role {
    const fn sends(self, stream: Stream) -> bool {
        matches!(self, Self::Host) == matches!(stream, Stream::Stdin)
    }
}

/// What a message from the peer has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is something to [`read`](Session::read), or the stream has ended.
    Readable(Stream),
    /// There is more room to [`write`](Session::write).
    Writable(Stream),
    /// The host's terminal has a new size (at a guest).
    Resized {
        /// Characters in a row.
        columns: u16,
        /// Rows of characters.
        rows: u16,
    },
    /// The shell is to be killed (at a guest).
    Aborted,
    /// The shell has ended (at a host).
    Exited {
        /// Whether with exit status 0.
        success: bool,
        /// Extension: JSON that says more; empty in the first dialect.
        detail: Bytes,
    },
    /// Extension: the command is to be sent a signal (at a guest).
    Signalled(u8),
}

/// The peer has broken a rule that cannot be passed over; the shell is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer ignores the flow control of {stream:?}")]
pub struct Violation {
    /// The stream whose window was exceeded.
    pub stream: Stream,
    /// By how much.
    #[source]
    pub source: WindowExceeded,
}

#[derive(Debug)]
struct Outgoing {
    window: SendWindow,
    /// Bytes that the peer has consumed, in all.
    acknowledged: u64,
    finished: bool,
}

#[derive(Debug)]
struct Incoming {
    window: ReceiveWindow,
    blocks: Chunks,
    ended: bool,
}

#[derive(Debug)]
enum Half {
    Outgoing(Outgoing),
    Incoming(Incoming),
}

/// One end of one shell.
///
/// Feed it what comes from the websocket ([`handle`](Self::handle)) and what the
/// local side does ([`write`](Self::write), [`finish`](Self::finish),
/// [`read`](Self::read), [`resize`](Self::resize), [`abort`](Self::abort),
/// [`exit`](Self::exit)); after either, send what [`next_message`](Self::next_message) yields
/// until it yields nothing.
///
/// ```
/// use bytes::Bytes;
/// use metaservice_protocol::shell::{Event, Role, Session, Stream};
///
/// let (mut host, mut guest) = (Session::new(Role::Host), Session::new(Role::Guest));
/// host.write(Stream::Stdin, Bytes::from_static(b"ls\n"));
/// let message = host.next_message().unwrap();
/// assert_eq!(guest.handle(&message), Ok(Some(Event::Readable(Stream::Stdin))));
/// assert_eq!(guest.read(Stream::Stdin).unwrap(), "ls\n");
/// ```
#[derive(Debug)]
pub struct Session {
    role: Role,
    dialect: Dialect,
    halves: [Half; 3],
    /// Acknowledgements not sent yet, per stream: reads share a message, in the second dialect
    /// until they are worth one.
    acks: [u32; 3],
    frames: VecDeque<Frame>,
    size: Option<(u16, u16)>,
    exited: bool,
}

impl Session {
    /// A shell of version 1 at its beginning: all streams open, all windows empty.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self::with_dialect(role, Dialect::V1)
    }

    /// A shell in the dialect that the handshake has agreed on.
    #[must_use]
    pub fn with_dialect(role: Role, dialect: Dialect) -> Self {
        let window = dialect.window();
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
                    blocks: Chunks::default(),
                    ended: false,
                })
            }
        };
        Self {
            role,
            dialect,
            halves: Stream::ALL.map(half),
            acks: [0; 3],
            frames: VecDeque::new(),
            size: None,
            exited: false,
        }
    }

    /// How the two ends speak.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// How many bytes [`write`](Self::write) takes now: 0 for a full window, a finished
    /// stream, or one that this end does not send.
    #[must_use]
    pub fn writable(&self, stream: Stream) -> usize {
        match self.half(stream) {
            Half::Outgoing(out) if !out.finished && !self.exited => {
                out.window.room().min(self.dialect.block())
            }
            _ => 0,
        }
    }

    /// Sends one block of a stream. An empty block is not sent.
    ///
    /// # Panics
    /// When `block` is longer than [`writable`](Self::writable) says: the caller's own mistake.
    pub fn write(&mut self, stream: Stream, block: Bytes) {
        assert!(block.len() <= self.writable(stream), "a block larger than what is writable");
        if let Half::Outgoing(out) = self.half_mut(stream)
            && !block.is_empty()
        {
            out.window.sent(block.len());
            self.frames.push_back(Frame::Data { stream, payload: block });
        }
    }

    /// Ends a stream of this end's own. Doing it again changes nothing.
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

    /// Whether a stream of this end's own has been [finished](Self::finish).
    #[must_use]
    pub fn is_finished(&self, stream: Stream) -> bool {
        matches!(self.half(stream), Half::Outgoing(out) if out.finished)
    }

    /// How many bytes of a stream of this end's own the peer has consumed, in all.
    #[must_use]
    pub fn acknowledged(&self, stream: Stream) -> u64 {
        match self.half(stream) {
            Half::Outgoing(out) => out.acknowledged,
            Half::Incoming(_) => 0,
        }
    }

    /// Takes the next block that came on a stream and acknowledges it.
    pub fn read(&mut self, stream: Stream) -> Option<Bytes> {
        let Half::Incoming(incoming) = self.half_mut(stream) else { return None };
        let block = incoming.blocks.pop()?;
        let consumed = incoming.window.consumed(block.len());
        let ended = incoming.ended;
        if !ended {
            // A peer that has ended its stream waits for no acknowledgement.
            self.acks[usize::from(stream.number())] += consumed;
        }
        Some(block)
    }

    /// Whether a stream of the peer's has ended and everything of it has been read.
    #[must_use]
    pub fn is_ended(&self, stream: Stream) -> bool {
        matches!(self.half(stream), Half::Incoming(i) if i.ended && i.blocks.is_empty())
    }

    /// Tells the guest a new terminal size. Of several that were not sent yet the last counts.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        if self.role == Role::Host {
            self.size = Some((columns, rows));
        }
    }

    /// Tells the guest to kill the shell.
    pub fn abort(&mut self) {
        if self.role == Role::Host {
            self.frames.push_back(Frame::Abort);
        }
    }

    /// Extension: sends the command a signal. In the first dialect nothing is sent.
    pub fn signal(&mut self, number: u8) {
        if self.role == Role::Host && self.dialect == Dialect::V2 {
            self.frames.push_back(Frame::Signal(number));
        }
    }

    /// Tells the host that the shell has ended, after finishing what is not finished yet. The
    /// `detail` is not sent in the first dialect, nor when it is longer than a message.
    pub fn exit(&mut self, success: bool, detail: &[u8]) {
        if self.role == Role::Guest && !self.exited {
            self.finish(Stream::Stdout);
            self.finish(Stream::Stderr);
            self.exited = true;
            let fits = self.dialect == Dialect::V2 && detail.len() <= self.dialect.block();
            let detail = Bytes::copy_from_slice(if fits { detail } else { &[] });
            self.frames.push_back(Frame::Exit { success, detail });
        }
    }

    /// The next message to send, if there is one. Acknowledgements go first: the
    /// peer may be waiting for nothing else.
    pub fn next_message(&mut self) -> Option<Bytes> {
        for stream in Stream::ALL {
            let consumed = &mut self.acks[usize::from(stream.number())];
            if *consumed as usize >= self.dialect.grain() {
                let consumed = std::mem::take(consumed);
                return Some(Frame::Ack { stream, consumed }.encode());
            }
        }
        if let Some((columns, rows)) = self.size.take() {
            return Some(Frame::Size { columns, rows }.encode());
        }
        self.frames.pop_front().map(|frame| frame.encode())
    }

    /// Takes a binary message of the peer's.
    ///
    /// Returns what it changed, `None` where the protocol says to ignore it: an
    /// invalid message, a frame that only the other role sends, data after a stream's end.
    ///
    /// # Errors
    /// [`Violation`] when the peer sends more than the window allows.
    pub fn handle(&mut self, message: &Bytes) -> Result<Option<Event>, Violation> {
        let frame: Result<Frame, InvalidFrame> = Frame::decode(message, self.dialect);
        let Ok(frame) = frame else { return Ok(None) };
        let guest = self.role == Role::Guest;
        match frame {
            Frame::Data { stream, payload } => self.handle_data(stream, payload),
            Frame::Ack { stream, consumed } => Ok(self.handle_ack(stream, consumed)),
            Frame::Size { columns, rows } if guest => Ok(Some(Event::Resized { columns, rows })),
            Frame::Abort if guest => Ok(Some(Event::Aborted)),
            Frame::Signal(number) if guest => Ok(Some(Event::Signalled(number))),
            Frame::Exit { success, detail } if !guest && !self.exited => {
                self.exited = true;
                // Nothing comes behind an exit: an output that was not ended is ended by it.
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
