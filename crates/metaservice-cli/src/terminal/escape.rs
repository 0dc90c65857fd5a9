//! The escape sequence: the keys that detach from a command.
//!
//! This module owns the syntax of `--detach-keys`, which is that of docker (`ctrl-p,ctrl-q`), and a
//! state machine that finds the sequence in the typed bytes. It holds back bytes that may begin the
//! sequence, and sends them if the sequence does not follow.

use anyhow::{Context, Result, bail, ensure};

/// The maximum number of keys in a sequence.
const MAX_KEYS: usize = 16;

/// The result for some typed keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The bytes to send to the guest.
    pub(crate) send: Vec<u8>,
    /// Whether the sequence is complete. Keys after it are dropped.
    pub(crate) detach: bool,
}

/// The sequence, and how many of its keys were typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Escape {
    sequence: Vec<u8>,
    matched: usize,
}

impl Escape {
    /// Parses `ctrl-p,ctrl-q`, `~,.` and similar. `none` is the empty sequence.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut sequence = Vec::new();
        if text != "none" {
            for word in text.split(',') {
                sequence
                    .push(parse_key(word).with_context(|| format!("in --detach-keys {text:?}"))?);
            }
        }
        ensure!(sequence.len() <= MAX_KEYS, "--detach-keys has more than {MAX_KEYS} keys");
        Ok(Self { sequence, matched: 0 })
    }

    /// Processes typed bytes.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> Keys {
        let mut send = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            let held = self.matched;
            self.matched = self.after(byte);
            if !self.sequence.is_empty() && self.matched == self.sequence.len() {
                self.matched = 0;
                return Keys { send, detach: true };
            }
            // Of the held bytes and this one, only the last `matched` bytes can still begin the
            // sequence.
            let free = held + 1 - self.matched;
            send.extend_from_slice(&self.sequence[..free.min(held)]);
            if free > held {
                send.push(byte);
            }
        }
        Keys { send, detach: false }
    }

    /// Returns the held bytes: no more keys follow.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        self.sequence[..std::mem::take(&mut self.matched)].to_vec()
    }

    /// Returns how many keys of the sequence are typed after `byte`: the longest suffix of the
    /// typed keys that is a prefix of the sequence.
    fn after(&self, byte: u8) -> usize {
        let typed = [&self.sequence[..self.matched], &[byte]].concat();
        let fits = |length: &usize| self.sequence.starts_with(&typed[typed.len() - length..]);
        (1..=typed.len().min(self.sequence.len())).rev().find(fits).unwrap_or(0)
    }
}

fn parse_key(word: &str) -> Result<u8> {
    if let &[key] = word.as_bytes()
        && key.is_ascii_graphic()
    {
        return Ok(key);
    }
    match word.strip_prefix("ctrl-").map(str::as_bytes) {
        Some(&[key @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(key & 0x1f),
        _ => bail!("{word:?} is not a key; write ctrl-p,ctrl-q, or ~,. or none"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(escape: &mut Escape, text: &str) -> (String, bool) {
        let keys = escape.feed(text.as_bytes());
        (String::from_utf8(keys.send).unwrap(), keys.detach)
    }

    #[test]
    fn keys_that_began_a_sequence_are_sent_at_the_end() {
        let mut escape = Escape::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(escape.feed(b"a\x10"), Keys { send: b"a".to_vec(), detach: false });
        assert_eq!(escape.end(), b"\x10");
        assert_eq!(escape.end(), b"");
    }

    #[test]
    fn a_beginning_is_held_back_and_sent_when_it_was_none() {
        let mut escape = Escape::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(feed(&mut escape, "a\x10"), ("a".into(), false));
        assert_eq!(feed(&mut escape, "b"), ("\x10b".into(), false));
        assert_eq!(feed(&mut escape, "\x10\x10"), ("\x10".into(), false));
        assert_eq!(feed(&mut escape, "\x11rest"), (String::new(), true));
    }

    #[test]
    fn words_are_those_of_docker() {
        assert_eq!(Escape::parse("a,ctrl-@,ctrl-_").unwrap().sequence, [b'a', 0, 31]);
        assert!(Escape::parse("none").unwrap().sequence.is_empty());
        for wrong in ["", "ctrl-", "ctrl-P", "ab", "a,", "ctrl-1", "\u{1b}"] {
            assert!(Escape::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_sequence_everything_is_sent() {
        let mut escape = Escape::parse("none").unwrap();
        assert_eq!(feed(&mut escape, "\x10\x11"), ("\x10\x11".into(), false));
    }

    proptest! {
        /// The pieces do not matter. All bytes before the first occurrence are sent. Without an
        /// occurrence, all bytes are sent, except a prefix of the sequence at the end.
        #[test]
        fn exactly_the_sequence_detaches(
            sequence in prop::collection::vec(0u8..2, 1..5),
            typed in prop::collection::vec(0u8..2, 0..40),
            cuts in prop::collection::vec(0usize..7, 0..40),
        ) {
            let mut escape = Escape { sequence: sequence.clone(), matched: 0 };
            let (mut sent, mut rest, mut detached) = (Vec::new(), &typed[..], false);
            for cut in cuts.into_iter().chain([typed.len()]) {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                rest = behind;
                let keys = escape.feed(piece);
                sent.extend(keys.send);
                detached |= keys.detach;
                if detached {
                    break;
                }
            }
            match typed.windows(sequence.len()).position(|window| window == sequence) {
                Some(at) => prop_assert!(detached && sent == typed[..at]),
                None => {
                    prop_assert!(!detached && typed.starts_with(&sent));
                    prop_assert!(sequence.starts_with(&typed[sent.len()..]));
                }
            }
        }
    }
}
