//! Sanitizing of a command's output for a terminal, if the command was not given a terminal.

use crate::output::printer::is_unfit;

/// Replaces control characters in a stream of bytes. Line breaks, tabs and carriage returns stay.
#[derive(Debug, Default)]
pub(crate) struct Sanitizer {
    /// The first bytes of an incomplete UTF-8 character.
    begun: Vec<u8>,
}

impl Sanitizer {
    /// Returns the sanitized text of the next bytes.
    pub(crate) fn sanitize(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut shown = String::with_capacity(all.len());
        let mut left = all.as_slice();
        loop {
            let error = match std::str::from_utf8(left) {
                Ok(text) => {
                    shown.extend(text.chars().map(harmless));
                    return shown;
                }
                Err(error) => error,
            };
            let (text, rest) = left.split_at(error.valid_up_to());
            shown.extend(String::from_utf8_lossy(text).chars().map(harmless));
            let Some(wrong) = error.error_len() else {
                self.begun = rest.to_vec();
                return shown;
            };
            shown.push(char::REPLACEMENT_CHARACTER);
            left = &rest[wrong..];
        }
    }

    /// Returns the text for an incomplete character at the end of the stream.
    pub(crate) fn end(&mut self) -> String {
        let begun = std::mem::take(&mut self.begun);
        String::from_utf8_lossy(&begun).into_owned()
    }
}

fn harmless(c: char) -> char {
    if is_unfit(c) && !matches!(c, '\n' | '\r' | '\t') { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_pieces_the_same_is_shown() {
        let bytes =
            b"a\x1b[2J\tb\xc3\xa4\xf0\x9f\x98\x80\xff\x07\r\n\xc2\x9b31m\xe2\x80\xaex\xe2\x80";
        let expected =
            "a\u{fffd}[2J\tb\u{e4}\u{1f600}\u{fffd}\u{fffd}\r\n\u{fffd}31m\u{fffd}x\u{fffd}";
        for size in 1..=bytes.len() {
            let mut sanitizer = Sanitizer::default();
            let mut shown: String =
                bytes.chunks(size).map(|piece| sanitizer.sanitize(piece)).collect();
            shown += &sanitizer.end();
            assert_eq!(shown, expected, "pieces of {size}");
        }
    }
}
