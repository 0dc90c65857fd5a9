//! What a terminal in the browser may get, and what it says. It does no I/O.

use serde::Deserialize;

/// The most bytes of output that the browser has not processed. A browser is slower than a command
/// that writes all the time, and without a limit the output would fill its memory.
pub(crate) const WINDOW: u64 = 256 * 1024;

/// The largest size of a terminal.
const MAX_SIDE: u16 = 2_000;

/// How much output is on its way to the browser.
#[derive(Debug, Default)]
pub(crate) struct Window {
    on_its_way: u64,
}

impl Window {
    /// Whether more output may be sent.
    pub(crate) const fn is_open(&self) -> bool {
        self.on_its_way < WINDOW
    }

    /// Output was sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.on_its_way = self.on_its_way.saturating_add(bytes as u64);
    }

    /// The browser has processed output. It cannot have processed more than was sent.
    pub(crate) const fn took(&mut self, bytes: u64) {
        self.on_its_way = self.on_its_way.saturating_sub(bytes);
    }
}

/// What the browser says, besides what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The size of the terminal: columns and rows.
    Resize(u16, u16),
    /// How many bytes of output were processed since the last time.
    Took(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    Resize(u16, u16),
    Took(u64),
}

impl Said {
    /// Reads a message. `None`: it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match serde_json::from_str(text).ok()? {
            Message::Resize(columns, rows) => {
                Self::Resize(columns.clamp(1, MAX_SIDE), rows.clamp(1, MAX_SIDE))
            }
            Message::Took(bytes) => Self::Took(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_read_or_refused() {
        assert_eq!(Said::parse(r#"{"resize":[80,24]}"#), Some(Said::Resize(80, 24)));
        assert_eq!(Said::parse(r#"{"resize":[0,65535]}"#), Some(Said::Resize(1, MAX_SIDE)));
        assert_eq!(Said::parse(r#"{"took":7}"#), Some(Said::Took(7)));
        for wrong in ["", "{}", "[]", r#"{"resize":[80]}"#, r#"{"took":-1}"#, r#"{"kill":1}"#] {
            assert_eq!(Said::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Whatever the browser says, no more is on its way than the window and one message.
        #[test]
        fn a_browser_that_takes_nothing_gets_a_window(
            steps in prop::collection::vec((any::<bool>(), 1..40_000_usize), 0..200),
        ) {
            let (mut window, mut on_its_way) = (Window::default(), 0);
            for (sends, bytes) in steps {
                if !sends {
                    window.took(bytes as u64);
                    on_its_way = u64::saturating_sub(on_its_way, bytes as u64);
                } else if window.is_open() {
                    window.sent(bytes);
                    on_its_way += bytes as u64;
                }
                prop_assert!(on_its_way < WINDOW + 40_000);
            }
            window.took(WINDOW + 40_000);
            prop_assert!(window.is_open());
        }
    }
}
