//! One side of a connection: numbers and windows. No I/O, no clock.
//!
//! Each side numbers its messages from zero. NATS delivers a message at most once: a number that is
//! not the next one ends the connection. A side may have [`WINDOW`] on the way. Each message of data
//! counts its bytes and [`OVERHEAD`], so that many small ones are bounded too. The receiver gives
//! credit for the bytes that it passed on.

use bytes::Bytes;

use super::frame::{Frame, MAX_DATA, Reason};

/// How much may be on the way in each direction, in bytes.
pub const WINDOW: usize = 256 * 1024;

/// What each message of data counts beside its bytes.
pub const OVERHEAD: usize = 256;

/// The receiver gives credit in parts of this size or more.
const PART: usize = WINDOW / 4;

/// Which side this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It opens the connection.
    Client,
    /// It accepts the connection.
    Worker,
}

/// What a message means for its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes to pass on. Tell [`Flow::passed`] when this was done.
    Data(Bytes),
    /// The worker has connected to the job.
    Opened,
    /// The other side writes no more.
    Finish,
    /// The connection is over.
    Reset(Reason),
    /// Nothing to do: there may be more [room](Flow::room).
    Nothing,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Flow {
    side: Side,
    /// The number of the next message in each direction.
    next_out: u64,
    next_in: u64,
    /// What this side may still send, and the other one.
    window_out: usize,
    window_in: usize,
    /// What was passed on since the last credit.
    owed: usize,
    is_opened: bool,
    has_finished: bool,
    has_peer_finished: bool,
}

impl Flow {
    /// A connection before its first message.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            next_out: 0,
            next_in: 0,
            window_out: WINDOW,
            window_in: WINDOW,
            owed: 0,
            is_opened: false,
            has_finished: false,
            has_peer_finished: false,
        }
    }

    fn send(&mut self, frame: &Frame) -> Bytes {
        let message = frame.encode(self.next_out);
        self.next_out += 1;
        message
    }

    /// The first message: of the client, that it wants a connection; of the worker, that there is
    /// one.
    pub fn open(&mut self) -> Bytes {
        self.send(if self.side == Side::Client { &Frame::Open } else { &Frame::Opened })
    }

    /// How many bytes the next message of data may have: zero to [`MAX_DATA`].
    #[must_use]
    pub fn room(&self) -> usize {
        let room = self.window_out.saturating_sub(OVERHEAD).min(MAX_DATA);
        if self.has_finished { 0 } else { room }
    }

    /// A message of data. It has at most as many bytes as there is [room](Self::room); the rest is
    /// cut off.
    pub fn data(&mut self, mut data: Bytes) -> Bytes {
        data.truncate(self.room());
        self.window_out = self.window_out.saturating_sub(data.len() + OVERHEAD);
        self.send(&Frame::Data(data))
    }

    /// The message that says that this side writes no more.
    pub fn finish(&mut self) -> Bytes {
        self.has_finished = true;
        self.send(&Frame::Finish)
    }

    /// A message that says only that this side is there.
    pub fn ping(&mut self) -> Bytes {
        self.send(&Frame::Ping)
    }

    /// The last message, if both sides did not finish.
    pub fn reset(&mut self, reason: Reason) -> Bytes {
        self.send(&Frame::Reset(reason))
    }

    /// Notes that bytes were passed on.
    pub fn passed(&mut self, bytes: usize) {
        self.owed += bytes;
    }

    /// A message of credit, if one is due.
    pub fn grant(&mut self) -> Option<Bytes> {
        if self.owed < PART || self.has_peer_finished {
            return None;
        }
        // More was never granted than the window, so it fits.
        let credit = std::mem::take(&mut self.owed).min(WINDOW - self.window_in);
        self.window_in += credit;
        Some(self.send(&Frame::Credit(u32::try_from(credit).unwrap_or(u32::MAX))))
    }

    /// Whether this side writes no more.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.has_finished
    }

    /// Whether the other side writes no more.
    #[must_use]
    pub fn has_peer_finished(&self) -> bool {
        self.has_peer_finished
    }

    /// Whether neither side writes any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_finished && self.has_peer_finished
    }

    /// Takes a message of the other side.
    ///
    /// # Errors
    /// When a message is missing or came twice, or this one follows no rule. The connection is over
    /// then: tell the other side by [`reset`](Self::reset).
    pub fn receive(&mut self, message: &Bytes) -> Result<Event, Reason> {
        let (number, frame) = Frame::decode(message)?;
        // The end of a connection needs no order.
        if let Frame::Reset(reason) = frame {
            return Ok(Event::Reset(reason));
        }
        if number != self.next_in {
            return Err(Reason::Lost);
        }
        self.next_in += 1;
        let is_open = frame == Frame::Open;
        if is_open != (number == 0 && self.side == Side::Worker) {
            return Err(Reason::Broken);
        }
        self.take(frame)
    }

    fn take(&mut self, frame: Frame) -> Result<Event, Reason> {
        match frame {
            Frame::Data(data) if !self.has_peer_finished => {
                let cost = data.len() + OVERHEAD;
                self.window_in = self.window_in.checked_sub(cost).ok_or(Reason::Broken)?;
                self.owed += OVERHEAD;
                Ok(Event::Data(data))
            }
            Frame::Credit(credit) => {
                let credit = usize::try_from(credit).map_err(|_| Reason::Broken)?;
                let window = self.window_out.checked_add(credit).filter(|window| *window <= WINDOW);
                self.window_out = window.ok_or(Reason::Broken)?;
                Ok(Event::Nothing)
            }
            Frame::Finish if !self.has_peer_finished => {
                self.has_peer_finished = true;
                Ok(Event::Finish)
            }
            Frame::Opened if self.side == Side::Client && !self.is_opened => {
                self.is_opened = true;
                Ok(Event::Opened)
            }
            Frame::Open | Frame::Ping => Ok(Event::Nothing),
            _ => Err(Reason::Broken),
        }
    }
}

#[cfg(test)]
mod tests;
