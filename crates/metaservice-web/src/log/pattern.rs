//! A regular expression from the page, with limits. It does no I/O.

use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;

/// The most memory of a compiled pattern, and of its matching, in bytes.
const MAX_COMPILED: usize = 1024 * 1024;

/// The most matches of a line that are marked.
const MAX_MARKS: usize = 200;

/// A place where a pattern matches: its begin and its end, in UTF-16 units as the page counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Mark(pub(crate) usize, pub(crate) usize);

/// A regular expression. Without a capital letter, it matches capital letters too. Its matching
/// takes a time that is linear in the length of the text.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

/// Text that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPattern {
    #[error("the pattern is empty")]
    Empty,
    #[error("the pattern is longer than {MAX_PATTERN} bytes, or needs too much memory")]
    TooLarge,
    #[error("this is not a regular expression: {0}")]
    Syntax(String),
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        match text.len() {
            0 => return Err(InvalidPattern::Empty),
            1..=MAX_PATTERN => {}
            _ => return Err(InvalidPattern::TooLarge),
        }
        let built = RegexBuilder::new(text)
            .case_insensitive(!text.chars().any(char::is_uppercase))
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build();
        built.map(Self).map_err(|error| match error {
            regex::Error::Syntax(message) => {
                // The last line says what is wrong; those before it draw where.
                let last = message.lines().last().unwrap_or_default();
                InvalidPattern::Syntax(last.trim_start_matches("error: ").to_owned())
            }
            _ => InvalidPattern::TooLarge,
        })
    }
}

impl Pattern {
    /// Whether it matches a part of the line.
    pub(crate) fn is_in(&self, line: &[u8]) -> bool {
        self.0.is_match(line)
    }

    /// Where it matches, without places of no length.
    pub(crate) fn marks(&self, line: &str) -> Vec<Mark> {
        let (mut units, mut at) = (0, 0);
        let mut count = |to: usize| {
            // A match of bytes can end within a character.
            let to = line.ceil_char_boundary(to);
            units += line[at..to].encode_utf16().count();
            at = to;
            units
        };
        let found = self.0.find_iter(line.as_bytes()).filter(|found| !found.is_empty());
        found.take(MAX_MARKS).map(|found| Mark(count(found.start()), count(found.end()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks(pattern: &str, line: &str) -> Vec<Mark> {
        pattern.parse::<Pattern>().unwrap().marks(line)
    }

    #[test]
    fn marks_are_counted_as_the_page_counts() {
        assert_eq!(marks("b", "abcb"), [Mark(1, 2), Mark(3, 4)]);
        assert_eq!(marks("b+", "\u{1f600}\u{e9}bb"), [Mark(3, 5)]);
        assert_eq!(marks("x*", "ab"), []);
        assert_eq!(marks("error", "Error ERROR"), [Mark(0, 5), Mark(6, 11)]);
        assert_eq!(marks("Error", "Error ERROR"), [Mark(0, 5)]);
        assert_eq!(marks(".", &"x".repeat(1000)).len(), MAX_MARKS);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let error = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(error(""), InvalidPattern::Empty);
        assert_eq!(error(&"x".repeat(1025)), InvalidPattern::TooLarge);
        assert_eq!(error(r"(\w{100}){100}"), InvalidPattern::TooLarge);
        assert_eq!(error("a("), InvalidPattern::Syntax("unclosed group".to_owned()));
    }

    proptest! {
        #[test]
        fn any_pattern_and_any_line_end(
            pattern in "[a-z.*+?()|\\[\\]\\\\{}^$0-9(?-u)]{1,12}",
            line in ".{0,40}",
        ) {
            let Ok(pattern) = pattern.parse::<Pattern>() else { return Ok(()) };
            let units = line.encode_utf16().count();
            for Mark(begin, end) in pattern.marks(&line) {
                prop_assert!(begin <= end && end <= units);
            }
        }
    }
}
