//! The stdin of the job's command, as the host feeds it.
//!
//! Owns what is not delivered yet, and the rule that one writer is attached at a time. It outlives
//! its writers: bytes that were accepted are delivered after a writer is gone.

mod backlog;

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use metaservice_private::lock;
use metaservice_protocol::TerminalSize;
use tokio::sync::{Notify, watch};

use self::backlog::Backlog;
pub(crate) use self::backlog::{Misplaced, Next};

/// Why nothing more is delivered.
#[derive(Debug, Clone)]
pub(crate) enum Over {
    /// The command has read all, or reads no more, or has ended.
    Unwanted,
    /// It cannot be delivered.
    Failed(Arc<dyn Error + Send + Sync>),
}

/// Why there is no writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// Another one is attached.
    Busy,
    /// The input has ended, or is over.
    Over,
}

#[derive(Debug, Default)]
struct State {
    backlog: Backlog,
    attached: bool,
    writer: Option<Waker>,
}

/// The stdin of the job's command.
#[derive(Debug)]
pub(crate) struct Input {
    state: Mutex<State>,
    /// There is something to deliver.
    changed: Notify,
    over: watch::Sender<Option<Over>>,
}

impl Default for Input {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), over: watch::Sender::new(None) }
    }
}

impl Input {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn update(&self, change: impl FnOnce(&mut Backlog)) {
        change(&mut self.lock().backlog);
        self.changed.notify_one();
    }

    /// Attaches a writer.
    pub(crate) fn attach(&self) -> Result<(), Unavailable> {
        let mut state = self.lock();
        if state.attached {
            return Err(Unavailable::Busy);
        }
        if state.backlog.is_ended() || self.over.borrow().is_some() {
            return Err(Unavailable::Over);
        }
        state.attached = true;
        Ok(())
    }

    /// The writer is gone.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        state.attached = false;
        state.writer = None;
    }

    /// Adds some of the first bytes, as soon as there is room; `None` if nothing more is wanted.
    pub(crate) fn poll_push(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<Option<usize>> {
        let mut state = self.lock();
        // Under the lock, so that an end at this moment finds the waker.
        if state.backlog.is_ended() || self.over.borrow().is_some() {
            return Poll::Ready(None);
        }
        let count = bytes.len().min(state.backlog.room());
        if count == 0 && !bytes.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.backlog.push(Bytes::copy_from_slice(&bytes[..count]));
        drop(state);
        self.changed.notify_one();
        Poll::Ready(Some(count))
    }

    /// No more bytes follow.
    pub(crate) fn end(&self) {
        self.update(Backlog::end);
    }

    pub(crate) fn set_size(&self, size: TerminalSize) {
        self.update(|backlog| backlog.set_size(size));
    }

    pub(crate) fn signal(&self, number: u8) {
        self.update(|backlog| backlog.signal(number));
    }

    /// A connection to the guest begins.
    pub(crate) fn connected(&self, from: u64) -> Result<(), Misplaced> {
        let connected = self.lock().backlog.connected(from);
        self.wake_writer();
        connected
    }

    /// The guest has acknowledged this many bytes of the current connection.
    pub(crate) fn acknowledged(&self, count: u64) {
        self.lock().backlog.acknowledged(count);
        self.wake_writer();
    }

    fn wake_writer(&self) {
        let mut state = self.lock();
        if state.backlog.room() > 0
            && let Some(writer) = state.writer.take()
        {
            writer.wake();
        }
    }

    /// See [`Backlog::next`].
    pub(crate) fn next(&self, bytes: bool) -> Option<Next> {
        self.lock().backlog.next(bytes)
    }

    /// Completes when there is something to deliver. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Nothing more is delivered. The first reason counts.
    pub(crate) fn finish(&self, over: Over) {
        let mut state = self.lock();
        self.over.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(over);
            first
        });
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Waits until nothing more is delivered. Cancel-safe.
    pub(crate) fn over(&self) -> impl Future<Output = Over> + use<> {
        let mut over = self.over.subscribe();
        async move {
            // An error means that the job is gone.
            let over = over.wait_for(Option::is_some).await;
            over.ok().and_then(|over| over.clone()).unwrap_or(Over::Unwanted)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn one_writer_is_attached_at_a_time_and_an_end_is_remembered() {
        let input = Input::default();
        input.attach().unwrap();
        assert_eq!(input.attach(), Err(Unavailable::Busy));
        input.detach();
        input.attach().unwrap();
        input.end();
        input.detach();
        assert_eq!(input.attach(), Err(Unavailable::Over));
    }

    #[tokio::test]
    async fn a_writer_waits_for_room_and_for_the_end() {
        let input = Arc::new(Input::default());
        let write = |length: usize| {
            let input = Arc::clone(&input);
            async move {
                let bytes = vec![1; length];
                poll_fn(|cx| input.poll_push(cx, &bytes)).await
            }
        };
        input.connected(0).unwrap();
        assert_eq!(write(2 * backlog::MAX_KEPT).await, Some(backlog::MAX_KEPT));
        let waiting = tokio::spawn(write(5));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        while input.next(true).is_some() {}
        input.acknowledged(3);
        assert_eq!(waiting.await.unwrap(), Some(3));
        let waiting = tokio::spawn(write(5));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        input.finish(Over::Unwanted);
        assert_eq!(waiting.await.unwrap(), None);
        assert!(matches!(input.over().await, Over::Unwanted));
    }
}
