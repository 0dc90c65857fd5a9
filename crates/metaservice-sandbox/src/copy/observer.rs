//! The progress of a copy, for those who show it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// A step of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The number of bytes that will be copied, if it is known.
    Total(Option<u64>),
    /// The number of bytes that have been copied so far.
    Bytes(u64),
}

/// A function that gets the steps of a copy, on any thread. Clones share it.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Step) + Send + Sync>);

impl Observer {
    /// An observer that calls this function. It must not block.
    pub fn new(observe: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// Takes in a step.
    pub fn observe(&self, step: Step) {
        (self.0)(step);
    }

    /// A function that takes in the bytes so far.
    pub(super) fn counter(&self) -> impl Fn(u64) + Send + 'static {
        let observer = self.clone();
        move |bytes| observer.observe(Step::Bytes(bytes))
    }

    /// Wraps `source`, and observes the bytes that are read from it.
    pub fn of<R>(&self, source: R) -> Observed<R> {
        Observed { source, bytes: 0, observer: self.clone() }
    }
}

impl Default for Observer {
    /// An observer that ignores the steps.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// A reader whose bytes are observed.
#[derive(Debug)]
pub struct Observed<R> {
    source: R,
    bytes: u64,
    observer: Observer,
}

impl<R: AsyncRead + Unpin> AsyncRead for Observed<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.source).poll_read(cx, buf))?;
        self.bytes += (buf.filled().len() - before) as u64;
        self.observer.observe(Step::Bytes(self.bytes));
        Poll::Ready(Ok(()))
    }
}
