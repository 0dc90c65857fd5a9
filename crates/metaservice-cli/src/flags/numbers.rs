//! Parsers of numbers on the command line.
//!
//! Their errors say what to write.

use std::str::FromStr;

/// Parses `--cpus`.
pub(crate) fn processors(text: &str) -> Result<u32, String> {
    number(text, "a number of processors: 1, 2, 4")
}

/// Parses `logs --tail`. [`u64::MAX`] stands for all lines.
pub(crate) fn lines(text: &str) -> Result<u64, String> {
    if text == "all" { Ok(u64::MAX) } else { number(text, "a number of lines, or \"all\"") }
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("write {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_number_gets_an_error_that_says_what_to_write() {
        assert_eq!((processors("2"), lines("7"), lines("all")), (Ok(2), Ok(7), Ok(u64::MAX)));
        for wrong in ["", "two", "-1", "1.5", "99999999999999999999999"] {
            assert!(processors(wrong).unwrap_err().contains("processors"), "{wrong}");
            assert!(lines(wrong).unwrap_err().contains("lines"), "{wrong}");
        }
    }
}
