//! Carries one connection between a stream of this host and messages.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::flow::{Event, Flow};
use super::frame::{MAX_DATA, Reason};

/// How often a side says that it is there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A side that sends nothing for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// How long a stream may take to take its last bytes once the other side is gone.
const FLUSH: Duration = Duration::from_secs(5);

/// What comes from the other side.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message.
    Message(Bytes),
    /// The server says that no process listens there.
    Gone,
}

/// Sends messages to the other side.
pub(super) trait Link {
    /// Sends a message.
    ///
    /// # Errors
    /// When the server takes none for [`SILENCE`].
    fn send(&self, message: Bytes) -> impl Future<Output = Result<(), Reason>> + Send;
}

/// Why a connection ended early, and who said so.
enum Stop {
    /// The other side, which needs no answer.
    Told(Reason),
    /// This side.
    Own(Reason),
}

/// What a side does before it carries bytes.
pub(super) enum Opening {
    /// It says that the stream is there: the worker.
    Tell,
    /// Nothing: the client, which has said that it wants a connection.
    Done,
}

/// One connection.
pub(super) struct Pump<'a, L, M> {
    flow: Flow,
    link: &'a L,
    watch: Watch<'a, M>,
    /// Bytes that the stream has not taken yet: at most a window.
    waiting: BytesMut,
    /// The stream takes nothing more. What comes for it is dropped.
    is_deaf: bool,
}

impl<'a, L: Link + Sync, M: Stream<Item = Incoming> + Unpin + Send> Pump<'a, L, M> {
    pub(super) fn new(flow: Flow, link: &'a L, messages: M, over: &'a CancellationToken) -> Self {
        let heard = Instant::now();
        let mut tick = tokio::time::interval_at(heard + KEEP_ALIVE, KEEP_ALIVE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch { messages, over, heard, tick };
        Self { flow, link, watch, waiting: BytesMut::new(), is_deaf: false }
    }

    /// Connects, and carries bytes until both sides have finished or one is gone.
    ///
    /// # Errors
    /// Why it ended early. The other side also knows it, if it can be reached.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Send + Unpin>(
        mut self,
        connecting: impl Future<Output = io::Result<S>> + Send,
        opening: Opening,
    ) -> Result<(), Reason> {
        let ended = match self.connect(connecting, opening).await {
            Ok(mut stream) => {
                let ended = self.carry(&mut stream).await;
                if matches!(ended, Err(Stop::Told(_))) {
                    // The other side ended after these bytes. The reader may be gone.
                    let _ = timeout(FLUSH, stream.write_all_buf(&mut self.waiting)).await;
                }
                ended
            }
            Err(stop) => Err(stop),
        };
        match ended {
            Ok(()) => Ok(()),
            Err(Stop::Told(reason)) => Err(reason),
            Err(Stop::Own(reason)) => {
                let message = self.flow.reset(reason);
                // The server may take no message.
                let _ = self.link.send(message).await;
                Err(reason)
            }
        }
    }

    /// Connects. What the other side sends meanwhile waits.
    async fn connect<S>(
        &mut self,
        connecting: impl Future<Output = io::Result<S>> + Send,
        opening: Opening,
    ) -> Result<S, Stop> {
        let mut connecting = pin!(connecting);
        let stream = loop {
            let notice = tokio::select! {
                // A stream that is there gets what came before the end.
                biased;
                stream = &mut connecting => {
                    break stream.map_err(|_| Stop::Own(Reason::CannotConnect))?;
                }
                notice = self.watch.next() => notice,
            };
            self.note(notice).await?;
        };
        if let Opening::Tell = opening {
            let message = self.flow.open();
            self.send(message).await?;
        }
        Ok(stream)
    }

    /// Waits until the worker has opened the connection, and ends it.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) async fn opened(mut self) -> Result<(), Reason> {
        loop {
            let notice = self.watch.next().await;
            match self.note(notice).await {
                Ok(Some(Event::Opened)) => break,
                Ok(_) => {}
                Err(Stop::Told(reason) | Stop::Own(reason)) => return Err(reason),
            }
        }
        let message = self.flow.reset(Reason::Closed);
        self.link.send(message).await
    }

    async fn send(&self, message: Bytes) -> Result<(), Stop> {
        self.link.send(message).await.map_err(Stop::Own)
    }

    /// Does what a notice asks for.
    async fn note(&mut self, notice: Notice) -> Result<Option<Event>, Stop> {
        match notice {
            Notice::Incoming(Some(Incoming::Message(message))) => self.take(&message).map(Some),
            Notice::Incoming(_) => Err(Stop::Told(Reason::Silent)),
            Notice::Tick => {
                let message = self.flow.ping();
                self.send(message).await.map(|()| None)
            }
            Notice::Silence => Err(Stop::Own(Reason::Silent)),
            Notice::Over => Err(Stop::Own(Reason::Ended)),
        }
    }

    fn take(&mut self, message: &Bytes) -> Result<Event, Stop> {
        self.watch.heard = Instant::now();
        let event = self.flow.receive(message).map_err(Stop::Own)?;
        match &event {
            Event::Data(data) if self.is_deaf => self.flow.passed(data.len()),
            Event::Data(data) => self.waiting.extend_from_slice(data),
            Event::Reset(reason) => return Err(Stop::Told(*reason)),
            _ => {}
        }
        Ok(event)
    }

    async fn carry<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> Result<(), Stop> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; MAX_DATA];
        let mut is_shut = false;
        while !(self.flow.is_over() && is_shut) {
            if let Some(credit) = self.flow.grant() {
                self.send(credit).await?;
            }
            let room = self.flow.room();
            let is_last = self.flow.has_peer_finished() && !is_shut;
            let can_write = !self.waiting.is_empty() || is_last;
            // Only waits here: a message that has its number is always sent.
            tokio::select! {
                notice = self.watch.next() => drop(self.note(notice).await?),
                written = write(&mut writer, &mut self.waiting), if can_write => {
                    is_shut |= self.written(written.ok())?;
                }
                read = reader.read(&mut buffer[..room]), if room > 0 => {
                    let count = read.unwrap_or(0);
                    self.read(&buffer[..count]).await?;
                }
            }
        }
        Ok(())
    }

    /// Notes what the stream took. `None`: it failed. Returns whether it takes no more.
    fn written(&mut self, written: Option<usize>) -> Result<bool, Stop> {
        match written {
            Some(0) => Ok(true),
            Some(count) => {
                self.flow.passed(count);
                Ok(false)
            }
            None if self.flow.has_finished() => Err(Stop::Own(Reason::Closed)),
            // What its process wrote before can still be read.
            None => {
                self.is_deaf = true;
                self.flow.passed(self.waiting.len());
                self.waiting.clear();
                Ok(self.flow.has_peer_finished())
            }
        }
    }

    /// Sends what was read. Nothing: the stream has ended.
    async fn read(&mut self, data: &[u8]) -> Result<(), Stop> {
        let message = match data.is_empty() {
            true if self.is_deaf => return Err(Stop::Own(Reason::Closed)),
            true => self.flow.finish(),
            false => self.flow.data(Bytes::copy_from_slice(data)),
        };
        self.send(message).await
    }
}

/// Writes some bytes, or the end of the stream if there are none. Cancel safe.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, waiting: &mut BytesMut) -> io::Result<usize> {
    if waiting.is_empty() {
        return writer.shutdown().await.map(|()| 0);
    }
    match writer.write_buf(waiting).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

/// What a connection has to do, beside its stream.
enum Notice {
    Incoming(Option<Incoming>),
    Tick,
    Silence,
    Over,
}

/// Waits for the other side.
struct Watch<'a, M> {
    messages: M,
    over: &'a CancellationToken,
    heard: Instant,
    tick: Interval,
}

impl<M: Stream<Item = Incoming> + Unpin> Watch<'_, M> {
    /// Cancel safe.
    async fn next(&mut self) -> Notice {
        tokio::select! {
            incoming = self.messages.next() => Notice::Incoming(incoming),
            _ = self.tick.tick() => Notice::Tick,
            () = tokio::time::sleep_until(self.heard + SILENCE) => Notice::Silence,
            () = self.over.cancelled() => Notice::Over,
        }
    }
}

#[cfg(test)]
mod tests;
