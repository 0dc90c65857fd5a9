//! Errors and diagnostics as text for people.
//!
//! Owns the conversion of an error with its causes into one line, and the prefix of the agent's
//! lines on a console that other programs write to as well.

use std::error::Error;
use std::io::{self, Write};

/// An error with its causes: `cannot run 'x': No such file or directory`.
///
/// The operating system's error number is left out.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors already contain the text of their cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    without_number(&line).to_owned()
}

fn without_number(line: &str) -> &str {
    match line.rsplit_once(" (os error ") {
        Some((words, number)) if number.trim_end_matches(')').parse::<i32>().is_ok() => words,
        _ => line,
    }
}

/// Prints one line to the standard error. Control characters, as of paths, are replaced.
pub(crate) fn print(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    // The agent works without a standard error.
    let _ = writeln!(io::stderr(), "metaservice: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot run 'x'")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_with_causes_is_one_line_without_numbers() {
        let error = Outer(std::io::Error::from_raw_os_error(2));
        assert_eq!(with_causes(&error), "cannot run 'x': No such file or directory");
        assert_eq!(without_number("a (os error b)"), "a (os error b)");
    }
}
