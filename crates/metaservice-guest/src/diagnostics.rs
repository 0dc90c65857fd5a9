//! Errors and diagnostics as people read them.
//!
//! Owns the one place where a chain of causes becomes a line, and the prefix by which the
//! agent's lines are known on a console that others write to as well.

use std::error::Error;
use std::io::{self, Write};

/// An error with its causes: `cannot run 'x': No such file or directory`.
///
/// The operating system's number behind its words is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause in their own words.
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

/// Says one line on the standard error. Control characters of strangers (paths, names) do
/// not reach it.
pub(crate) fn say(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    // A standard error that nobody reads is no reason to stop.
    let _ = writeln!(io::stderr(), "metaservice: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot run 'x'")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_is_one_line_without_numbers() {
        let error = Outer(std::io::Error::from_raw_os_error(2));
        assert_eq!(chain(&error), "cannot run 'x': No such file or directory");
        assert_eq!(without_number("a (os error b)"), "a (os error b)");
    }
}
