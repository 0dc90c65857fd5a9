//! The progress bar of a copy. It also counts the bytes if it is not shown.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use metaservice_sandbox::copy::{Observer, Step};

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
        set_style(&bar, total.is_some());
        Self(bar.with_message(text))
    }

    /// Shows a step of a copy.
    pub(crate) fn observe(&self, step: Step) {
        observe(&self.0, step);
    }

    /// An observer of a copy, which shows its steps.
    pub(crate) fn observer(&self) -> Observer {
        let bar = self.0.clone();
        Observer::new(move |step| observe(&bar, step))
    }

    /// Adds bytes.
    pub(crate) fn count(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Removes the bar. Returns the number of bytes and the elapsed time.
    pub(crate) fn finish(self) -> (u64, Duration) {
        let outcome = (self.0.position(), self.0.elapsed());
        self.0.finish_and_clear();
        outcome
    }
}

fn set_style(bar: &ProgressBar, known: bool) {
    if let Ok(style) = ProgressStyle::with_template(if known { KNOWN } else { UNKNOWN }) {
        bar.set_style(style);
    }
}

fn observe(bar: &ProgressBar, step: Step) {
    match step {
        Step::Total(Some(total)) => {
            bar.set_length(total);
            set_style(bar, true);
        }
        Step::Bytes(bytes) => bar.set_position(bytes),
        _ => {}
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
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
        progress.observe(Step::Bytes(40));
        progress.0.tick();
        assert!(line.0.lock().unwrap().1.contains("40 B/100 B"), "{line:?}");
        assert_eq!(progress.finish().0, 40);
        assert_eq!(line.0.lock().unwrap().0.trim(), "");
    }
}
