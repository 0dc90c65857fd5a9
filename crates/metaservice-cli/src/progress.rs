//! How far a copy has come, shown on a terminal and nowhere else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

/// Of a known length: a bar, bytes of bytes, rate, time left.
const KNOWN: &str =
    "{msg} {bar:24.cyan/dim} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
/// Of an unknown one.
const UNKNOWN: &str = "{msg} {spinner:.cyan} {binary_bytes} {binary_bytes_per_sec} {elapsed:.dim}";

/// A bar that goes from the terminal when this is dropped; it counts where nobody looks, too.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(shown: bool, text: String, total: Option<u64>) -> Self {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        bar.set_draw_target(target);
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar.with_message(text))
    }

    /// Counts what is read of `source`.
    pub(crate) fn of<R>(&self, source: R) -> Counted<R> {
        Counted { source, bar: self.0.clone() }
    }

    /// Counts bytes that went another way.
    pub(crate) fn count(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.position()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A source whose bytes are counted.
pub(crate) struct Counted<R> {
    source: R,
    bar: ProgressBar,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.source).poll_read(cx, buf))?;
        self.bar.inc((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}
