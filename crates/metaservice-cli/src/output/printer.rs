//! Notes, events, errors and progress on standard error.
//!
//! This module owns their format: text, JSON or nothing. It also owns the sanitizing of text for a
//! terminal: each text is sanitized here, because a name of a guest can be anywhere in it.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::flags::OutputArgs;
use crate::output::progress::Progress;
use crate::output::stderr;

/// The format of the messages on standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    terminal: bool,
}

impl Printer {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        Self { json: args.json, quiet: args.quiet, terminal: std::io::stderr().is_terminal() }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Returns whether `--quiet` is set.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a note, which is not an error.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet && !self.json {
            stderr::line(&format!("metaservice: {}", printable(text)));
        }
    }

    /// Prints an event for programs, as a line of JSON. Without `--json`, it prints nothing.
    pub(crate) fn event(self, name: &str, mut details: serde_json::Value) {
        if self.json {
            details["event"] = name.into();
            stderr::line(&json_text(&details.to_string()));
        }
    }

    /// Prints an error with its causes and its hint.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hint>());
        let causes = error.chain().filter(|cause| cause.downcast_ref::<Hint>().is_none());
        let mut causes = causes.map(ToString::to_string).collect::<Vec<_>>();
        // An error may show its cause.
        causes.dedup();
        let text = causes.join(": ");
        if self.json {
            let hint = hint.map(|Hint(hint)| hint);
            self.event("error", json!({ "message": text, "hint": hint }));
            return;
        }
        stderr::line(&format!("metaservice: {}", printable(&text)));
        if let Some(Hint(hint)) = hint {
            stderr::line(&format!("hint: {hint}"));
        }
    }

    /// Shows a progress bar for bytes, only on a terminal.
    pub(crate) fn progress(self, text: &str, total: Option<u64>) -> Progress {
        let shown = !self.quiet && !self.json && self.terminal;
        Progress::new(shown, printable(text), total)
    }

    /// Shows a spinner, only on a terminal.
    pub(crate) fn spinner(self, text: impl AsRef<str>) -> Spinner {
        if self.quiet || self.json || !self.terminal {
            return Spinner(None);
        }
        let bar = ProgressBar::new_spinner().with_message(printable(text.as_ref()));
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(Some(bar))
    }
}

/// A spinner. It is removed from the terminal when it is dropped.
pub(crate) struct Spinner(Option<ProgressBar>);

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A hint in the chain of an error, which says how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Hint(pub(crate) String);

/// Replaces control characters, and characters that change how text is displayed. Line breaks stay.
pub(crate) fn printable(text: &str) -> String {
    let show = |c: char| if is_unfit(c) && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(show).collect()
}

/// Escapes control characters in JSON, for a terminal. The values stay the same.
pub(crate) fn json_text(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside strings, the only such character is a line break.
        if is_unfit(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text += &format!("\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Returns whether a terminal acts on the character, or it is invisible and can reorder text.
pub(crate) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_moves_no_terminal() {
        let value = json!({ "name": "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}gnp.exe \u{1f600}\n" });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = json_text(&text);
            assert!(shown.chars().all(|c| !is_unfit(c) || c == '\n'), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[31mb\u{9b}c\r\n\x07"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}\n\u{fffd}"
        );
    }
}
