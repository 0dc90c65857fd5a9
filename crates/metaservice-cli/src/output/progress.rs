//! The progress bar of a copy. It also counts the bytes if it is not shown.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

/// The template for a known length: a bar, bytes of all bytes, rate, time left.
const KNOWN: &str =
    "{msg} {bar:24.cyan/dim} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
/// The template for an unknown length.
const UNKNOWN: &str = "{msg} {spinner:.cyan} {binary_bytes} {binary_bytes_per_sec} {elapsed:.dim}";

/// A progress bar. It is removed from the terminal when it is dropped.
#[derive(Debug)]
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

    /// Wraps `source`, and counts the bytes that are read from it.
    pub(crate) fn of<R>(&self, source: R) -> Counted<R> {
        Counted { source, bar: self.0.clone() }
    }

    /// Adds bytes that were not read through [`Self::of`].
    pub(crate) fn count(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Returns a function that sets the total number of bytes. Another thread can call it.
    pub(crate) fn counter(&self) -> impl Fn(u64) + Send + 'static {
        let bar = self.0.clone();
        move |bytes| bar.set_position(bytes)
    }

    /// Removes the bar. Returns the number of bytes and the elapsed time.
    pub(crate) fn finish(self) -> (u64, Duration) {
        let outcome = (self.0.position(), self.0.elapsed());
        self.0.finish_and_clear();
        outcome
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A reader whose bytes are counted.
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of one line: its current text, and all that was ever written.
    #[derive(Debug, Default, Clone)]
    struct Line(Arc<Mutex<(String, String)>>);

    impl TermLike for Line {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            let mut lines = self.0.lock().unwrap();
            lines.0 += text;
            lines.1 += text;
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().0.clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_of_a_bar_stays_on_the_terminal() {
        let line = Line::default();
        let progress = Progress::new(false, "copying".to_owned(), Some(100));
        progress.0.set_draw_target(ProgressDrawTarget::term_like(Box::new(line.clone())));
        progress.counter()(40);
        progress.0.tick();
        assert!(line.0.lock().unwrap().1.contains("40 B/100 B"), "{line:?}");
        assert_eq!(progress.finish().0, 40);
        assert_eq!(line.0.lock().unwrap().0.trim(), "");
    }
}
