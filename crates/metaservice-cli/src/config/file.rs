//! The content of a configuration file: profiles, with the line of each key.
//!
//! This module knows TOML, and no option. [`super::profile`] gives the keys their meaning.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The profiles of a file, by name.
pub(crate) type Profiles = BTreeMap<String, Vec<Entry>>;

/// A key of a profile, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    /// The line in the file, from 1.
    pub(crate) line: usize,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `true` or `false`.
    Switch(bool),
    /// A text or a number.
    One(String),
    /// A list of texts and numbers.
    Many(Vec<String>),
}

/// A file that is not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind}")]
pub(crate) struct FileError {
    /// The line, from 1.
    pub(crate) line: usize,
    #[source]
    pub(crate) kind: FileErrorKind,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FileErrorKind {
    /// It is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// A key outside a profile.
    #[error("{0:?} is in no profile: write [profile.NAME] above it")]
    Outside(String),
    /// `profile` or a profile is not a table.
    #[error("{0} is not a table: write [profile.NAME], and below it KEY = VALUE")]
    NoTable(String),
    /// A value of a type that no option has.
    #[error("{key:?} cannot be {found}: write a text, a number, true, false or a list of texts")]
    Type {
        /// The key.
        key: String,
        /// The type that it has.
        found: &'static str,
    },
}

/// Parses the text of a file.
///
/// # Errors
/// [`FileError`], with the first line that is wrong.
pub(crate) fn parse(text: &str) -> Result<Profiles, FileError> {
    let lines = Lines(text);
    let document = DeTable::parse(text).map_err(|error| FileError {
        line: error.span().map_or(1, |span| lines.of(span)),
        kind: FileErrorKind::Syntax(error.message().replace('\n', " ")),
    })?;
    let mut profiles = Profiles::new();
    for (name, table) in document.get_ref() {
        let line = lines.of(name.span());
        let wrong = |kind| FileError { line, kind };
        if name.get_ref() != "profile" {
            return Err(wrong(FileErrorKind::Outside(name.get_ref().to_string())));
        }
        let DeValue::Table(table) = table.get_ref() else {
            return Err(wrong(FileErrorKind::NoTable("profile".to_owned())));
        };
        for (name, entries) in table {
            let DeValue::Table(entries) = entries.get_ref() else {
                let kind = FileErrorKind::NoTable(format!("profile.{}", name.get_ref()));
                return Err(FileError { line: lines.of(name.span()), kind });
            };
            profiles.insert(name.get_ref().to_string(), self::entries(entries, lines)?);
        }
    }
    Ok(profiles)
}

/// The entries of a profile in the order of the file.
fn entries(table: &DeTable<'_>, lines: Lines<'_>) -> Result<Vec<Entry>, FileError> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let line = lines.of(key.span());
        let key = key.get_ref().to_string();
        let value = match value.get_ref() {
            DeValue::Boolean(on) => Ok(Value::Switch(*on)),
            DeValue::Array(list) => list
                .iter()
                .map(|one| text(one.get_ref()))
                .collect::<Result<_, _>>()
                .map(Value::Many),
            one => text(one).map(Value::One),
        };
        match value {
            Ok(value) => entries.push(Entry { key, value, line }),
            Err(found) => return Err(FileError { line, kind: FileErrorKind::Type { key, found } }),
        }
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// The text of one value, or what it is instead of a text.
fn text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(_) => Err("a list of true and false"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("a list of lists"),
        DeValue::Table(_) => Err("a table"),
    }
}

/// The lines of a text.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line in which a part of the text begins, from 1.
    fn of(self, span: Range<usize>) -> usize {
        let before = self.0.as_bytes().get(..span.start).unwrap_or(self.0.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_profile_has_its_keys_with_values_and_lines() {
        let text = "# comment\n[profile.ci]\nmemory = \"2G\"\ncpus = 2\n\ntty = true\n\
                    env = [\"A=1\", \"B=2\"]\n[profile.empty]\n";
        let profiles = parse(text).unwrap();
        let entry = |key: &str, value, line| Entry { key: key.to_owned(), value, line };
        let one = |text: &str| Value::One(text.to_owned());
        assert_eq!(
            profiles["ci"],
            [
                entry("memory", one("2G"), 3),
                entry("cpus", one("2"), 4),
                entry("tty", Value::Switch(true), 6),
                entry("env", Value::Many(vec!["A=1".to_owned(), "B=2".to_owned()]), 7),
            ]
        );
        assert_eq!(profiles["empty"], []);
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, line, says) in [
            ("[profile.a]\ncpus = = 2\n", 2, "not TOML"),
            ("[profile.a]\ncpus = 2\ncpus = 3\n", 3, "duplicate key"),
            ("[profile.a\n", 1, "not TOML"),
            ("\nmemory = \"2G\"\n", 2, "write [profile.NAME]"),
            ("[profiles.ci]\n", 1, "write [profile.NAME]"),
            ("profile = 1\n", 1, "not a table"),
            ("[profile]\nci = 1\n", 2, "profile.ci is not a table"),
            ("[profile.a]\n\nenv = {A = \"1\"}\n", 3, "cannot be a table"),
            ("[profile.a]\ntimeout = 10:00:00\n", 2, "cannot be a date"),
            ("[profile.a]\nenv = [[]]\n", 2, "a list of lists"),
            ("[profile.a]\nenv = [true]\n", 2, "a list of true and false"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line == line && error.to_string().contains(says), "{text:?}: {error:?}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_file_or_an_error_in_one_of_its_lines(text in "[\\[\\]=\"a-c.\n1 t]{0,80}") {
            if let Err(error) = parse(&text) {
                prop_assert!((1..=1 + text.matches('\n').count()).contains(&error.line));
            }
        }
    }
}
