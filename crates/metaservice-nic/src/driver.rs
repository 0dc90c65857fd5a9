//! The task that moves frames between QEMU's socket and the card.
//!
//! Owns the socket, the clock and the copy of the frames, and decides nothing. Each turn reads as
//! many frames as there are in one call, gives them to the interface under one lock, polls the
//! interface once, and writes the resulting frames in one call. It waits for the socket, for a
//! connection that has something to send, and for the next deadline of the interface.
//!
//! QEMU may stop reading, for example for a paused guest. Then the outgoing queue stays full and
//! TCP waits. But the task still reads what QEMU sends: two ends that only write would wait for
//! each other.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use tokio::{net::UnixStream, time::Sleep};

use crate::{
    error::Error,
    frame::{Outgoing, Splitter},
    pace::Pace,
    pcap::Pcap,
    shared::Shared,
    statistics::Statistics,
};

/// How many turns the driver takes before it yields to other tasks.
const TURNS: usize = 16;

/// Moves frames while it [runs](Self::run).
///
/// Dropping it, before or while it runs, cuts the link: connections end with an error once the data
/// that had arrived is read.
#[must_use = "nothing is on the wire unless the driver runs"]
pub struct Driver {
    socket: UnixStream,
    splitter: Splitter,
    pace: Pace,
    /// Some frames are left in the splitter because of the frame rate.
    unread: bool,
    outgoing: Outgoing,
    pcap: Option<Pcap>,
    /// The time of the clock at the start of the card, since 1970.
    epoch: Duration,
    timer: Pin<Box<Sleep>>,
    armed: Option<Duration>,
    wakers: Vec<Waker>,
    /// QEMU reads no more. It may still have sent something.
    mute: bool,
    shared: Arc<Shared>,
}

/// What a turn under the lock says about the next one.
struct Turn {
    deadline: Option<Duration>,
    backlog: bool,
    finished: bool,
}

impl Driver {
    pub(crate) fn new(
        socket: UnixStream,
        frames: u32,
        pcap: Option<Pcap>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            socket,
            splitter: Splitter::new(),
            pace: Pace::new(frames),
            unread: false,
            outgoing: Outgoing::new(),
            pcap,
            epoch: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            timer: Box::pin(tokio::time::sleep_until(shared.start)),
            armed: None,
            wakers: Vec::new(),
            mute: false,
            shared,
        }
    }

    /// Runs until QEMU closes the socket. It also ends when the [`Nic`](crate::Nic), the
    /// [`Gateway`](crate::Gateway) and all connections are dropped and their data is delivered.
    ///
    /// # Errors
    /// [`Error::Socket`] if the socket fails in another way, and [`Error::Framing`] if the data is
    /// not a stream of frames. Connections then end as at a normal end.
    pub async fn run(mut self) -> Result<Statistics, Error> {
        poll_fn(|context| self.poll_run(context)).await?;
        Ok(self.shared.lock().interface.statistics())
    }

    fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        for _ in 0..TURNS {
            let held = self.pace.held_until(self.shared.now());
            let read = match held {
                // The timer wakes the task: a guest that sends too much waits.
                Some(_) => false,
                // The splitter may have no room before these frames are taken.
                None if self.unread => true,
                None => match self.poll_fill(context) {
                    Poll::Ready(Ok(0)) => {
                        tracing::debug!("the machine has closed its network card");
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Ok(_)) => true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => false,
                },
            };
            let turn = self.take_turn(context)?;
            self.poll_drain(context)?;
            let drained = self.outgoing.unsent().is_empty();
            if turn.finished && drained {
                return Poll::Ready(Ok(()));
            }
            if read || (turn.backlog && drained) {
                continue;
            }
            if let Some(pcap) = &mut self.pcap {
                pcap.flush();
            }
            let deadline = turn.deadline.into_iter().chain(held).min();
            if self.poll_timer(deadline, context).is_pending() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once. `Ok(0)` means that no more will come.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            return match self.socket.try_read(self.splitter.unfilled()) {
                Ok(count) => {
                    self.splitter.filled(count);
                    Poll::Ready(Ok(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if is_end(&error) => Poll::Ready(Ok(0)),
                Err(error) => Poll::Ready(Err(error)),
            };
        }
    }

    /// Does one turn under the lock, and wakes the tasks that wait for a change.
    fn take_turn(&mut self, context: &mut Context<'_>) -> Result<Turn, Error> {
        let now = self.shared.now();
        let mark = self.outgoing.mark();
        let mut state = self.shared.lock();
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.driver = Some(context.waker().clone());
        }
        loop {
            self.unread = self.pace.held_until(now).is_some();
            if self.unread {
                break;
            }
            let Some(frame) = self.splitter.next_frame()? else { break };
            self.pace.came(now);
            if let Some(pcap) = &mut self.pcap {
                pcap.record(self.epoch + now, frame);
            }
            state.interface.receive(frame, now, &mut self.outgoing);
        }
        state.interface.poll(now, &mut self.outgoing);
        state.collect_wakers(&mut self.wakers);
        let turn = Turn {
            deadline: state.interface.deadline(),
            backlog: state.interface.has_backlog(),
            finished: !state.accepting && !state.routing && state.interface.is_idle(),
        };
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
        if let Some(pcap) = &mut self.pcap {
            for frame in self.outgoing.frames_since(mark) {
                pcap.record(self.epoch + now, frame);
            }
        }
        Ok(turn)
    }

    /// Writes as much as QEMU accepts.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.unsent().is_empty() {
            let unsent = self.outgoing.unsent();
            if self.mute {
                let count = unsent.len();
                self.outgoing.sent(count);
                continue;
            }
            let result = match self.socket.poll_write_ready(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => self.socket.try_write(unsent),
                Poll::Ready(Err(error)) => Err(error),
            };
            match result {
                Ok(count) => self.outgoing.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The last data of the machine may still be in the socket.
                Err(error) if is_end(&error) => self.mute = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ready at the deadline.
    fn poll_timer(&mut self, deadline: Option<Duration>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            self.armed = None;
            return Poll::Pending;
        };
        if self.armed != Some(deadline) {
            self.armed = Some(deadline);
            self.timer.as_mut().reset(self.shared.start + deadline);
        }
        ready!(self.timer.as_mut().poll(context));
        self.armed = None;
        Poll::Ready(())
    }
}

/// Whether QEMU has ended, as opposed to a failure.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.lock().close(&mut self.wakers);
        self.wakers.drain(..).for_each(Waker::wake);
        if let Some(pcap) = &mut self.pcap {
            pcap.flush();
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Driver").field("socket", &self.socket).finish_non_exhaustive()
    }
}
