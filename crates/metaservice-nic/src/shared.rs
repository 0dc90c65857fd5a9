//! What the card, its driver and its connections share.
//!
//! One lock guards the whole card. Each holder does a limited amount of work in memory under it,
//! and never I/O or a wake.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::interface::{AttemptId, ConnectionId, Interface};

/// What the driver, the card and its connections share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<CardState>,
    /// The start of the card's time.
    pub(crate) start: Instant,
}

pub(crate) struct CardState {
    pub(crate) interface: Interface,
    /// Woken when a connection has something to send, or the card is dropped.
    pub(crate) driver: Option<Waker>,
    pub(crate) acceptor: Option<Waker>,
    /// Woken when the guest wants to connect through the card.
    pub(crate) attempter: Option<Waker>,
    /// Woken when the guest has sent a datagram.
    pub(crate) receiver: Option<Waker>,
    /// Woken when the guest has sent an echo request.
    pub(crate) echoer: Option<Waker>,
    /// Woken when something of the guest was rejected.
    pub(crate) rejecter: Option<Waker>,
    /// The tasks that wait for each attempt.
    pub(crate) attempts: HashMap<AttemptId, Waker>,
    /// The tasks that wait for each connection.
    pub(crate) streams: HashMap<ConnectionId, StreamWakers>,
    /// Whether the [`Nic`](crate::Nic) exists.
    pub(crate) accepting: bool,
    /// Whether the [`Gateway`](crate::Gateway) exists.
    pub(crate) routing: bool,
    /// Whether the driver has ended.
    pub(crate) closed: bool,
}

#[derive(Default)]
pub(crate) struct StreamWakers {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Shared {
    /// If a thread panicked with the lock, the others continue with the card as it is. The driver
    /// closes it when it is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, CardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Changes the card, and wakes the driver if there is something to send.
    pub(crate) fn act<R>(&self, action: impl FnOnce(&mut CardState) -> R) -> R {
        let mut state = self.lock();
        let result = action(&mut state);
        let driver = if state.interface.has_backlog() { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }
}

impl CardState {
    /// Collects the tasks that wait for what the interface has changed.
    pub(crate) fn collect_wakers(&mut self, wakers: &mut Vec<Waker>) {
        if self.interface.has_waiting() {
            wakers.extend(self.acceptor.take());
        }
        if self.interface.has_attempts() {
            wakers.extend(self.attempter.take());
        }
        if self.interface.has_datagrams() {
            wakers.extend(self.receiver.take());
        }
        if self.interface.has_echoes() {
            wakers.extend(self.echoer.take());
        }
        if self.interface.has_rejected() {
            wakers.extend(self.rejecter.take());
        }
        for id in self.interface.take_attempt_changes() {
            wakers.extend(self.attempts.remove(&id));
        }
        for id in self.interface.take_changes() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            if stream.reader.is_some() && self.interface.is_readable(id) {
                wakers.extend(stream.reader.take());
            }
            if stream.writer.is_some() && self.interface.is_writable(id) {
                wakers.extend(stream.writer.take());
            }
        }
    }

    /// Marks the driver as ended: nothing will change any more.
    pub(crate) fn close(&mut self, wakers: &mut Vec<Waker>) {
        self.closed = true;
        wakers.extend(self.acceptor.take());
        wakers.extend(self.attempter.take());
        wakers.extend(self.receiver.take());
        wakers.extend(self.echoer.take());
        wakers.extend(self.rejecter.take());
        wakers.extend(self.attempts.drain().map(|(_, waker)| waker));
        for stream in self.streams.values_mut() {
            wakers.extend(stream.reader.take());
            wakers.extend(stream.writer.take());
        }
    }
}
