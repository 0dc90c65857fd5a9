//! Gives bytes to the parser of control sequences. It does no I/O.

use vte::{Parser, Perform};

/// A parser for bytes that arrive in pieces. What it does with them does not depend on the pieces.
pub(crate) struct Feed {
    parser: Parser,
    /// The begin of a character. The parser would lose what follows a character that it gets in
    /// two pieces, if invalid bytes come soon after it.
    held: Vec<u8>,
}

impl Feed {
    /// A parser outside of a sequence.
    pub(crate) fn new() -> Self {
        Self { parser: Parser::new(), held: Vec::new() }
    }

    /// Parses the next bytes. A character without its end waits for it.
    pub(crate) fn advance(&mut self, performer: &mut impl Perform, bytes: &[u8]) {
        let joined;
        let bytes = if self.held.is_empty() {
            bytes
        } else {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        let (whole, begun) = bytes.split_at(bytes.len() - begun(bytes));
        self.parser.advance(performer, whole);
        self.held.extend_from_slice(begun);
    }
}

/// The length of the character at the end that lacks its last bytes; 0 if there is none.
fn begun(bytes: &[u8]) -> usize {
    for (before, byte) in bytes.iter().rev().take(3).enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > before + 1 { before + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Printed(String);

    impl Perform for Printed {
        fn print(&mut self, char: char) {
            self.0.push(char);
        }
    }

    #[test]
    fn what_follows_a_cut_character_is_not_lost() {
        for (pieces, text) in [
            (&[&b"\xc3"[..], b"\xa9 \x80"][..], "\u{e9} "),
            (&[b"\xe2", b"\x82", b"\xac\xff!"], "\u{20ac}\u{fffd}!"),
            (&[b"\xf0\x9f\x98", b"\x80"], "\u{1f600}"),
            (&[b"a\xc3", b"b"], "a\u{fffd}b"),
        ] {
            let (mut feed, mut printed) = (Feed::new(), Printed::default());
            for piece in pieces {
                feed.advance(&mut printed, piece);
            }
            assert_eq!(printed.0, text, "{pieces:?}");
        }
    }
}
