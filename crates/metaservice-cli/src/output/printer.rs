//! Everything that is said on stderr: notes, errors, progress. stdout is the log's.
//!
//! Texts are ours or the user's; what a guest says is made printable before it gets here.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::flags::OutputArgs;
use crate::output::progress::Progress;
use crate::output::stderr;

/// How output looks.
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

    /// Whether only what was asked for is to be said.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Something worth knowing that is no error.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet && !self.json {
            stderr::line(&format!("metaservice: {text}"));
        }
    }

    /// Something for programs only, as a line of JSON.
    pub(crate) fn event(self, name: &str, mut details: serde_json::Value) {
        if self.json {
            details["event"] = name.into();
            stderr::line(&json_text(&details.to_string()));
        }
    }

    /// An error with its causes, and what to do about it.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hint>());
        let causes = error.chain().filter(|cause| cause.downcast_ref::<Hint>().is_none());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
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

    /// A bar while bytes move; only on a terminal.
    pub(crate) fn progress(self, text: &str, total: Option<u64>) -> Progress {
        let shown = !self.quiet && !self.json && self.terminal;
        Progress::new(shown, printable(text), total)
    }

    /// A spinner while something takes its time; only on a terminal.
    pub(crate) fn spinner(self, text: impl Into<Cow<'static, str>>) -> Spinner {
        if self.quiet || self.json || !self.terminal {
            return Spinner(None);
        }
        let bar = ProgressBar::new_spinner().with_message(text);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(Some(bar))
    }
}

/// Gone from the terminal when dropped.
pub(crate) struct Spinner(Option<ProgressBar>);

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The innermost cause of an error may say what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Hint(pub(crate) String);

/// `text` without anything that a terminal would act on or that would be read otherwise than it
/// is written; line breaks stay.
pub(crate) fn printable(text: &str) -> String {
    let show = |c: char| if is_unfit(c) && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(show).collect()
}

/// JSON of which a terminal acts on nothing: a reader has the same values.
pub(crate) fn json_text(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // Between the strings there are line breaks at most.
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

/// Whether a terminal acts on it, or it shows nothing and changes the order of others.
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
