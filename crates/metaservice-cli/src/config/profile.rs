//! From a profile to options of `run`.
//!
//! A profile becomes arguments that are parsed before those of the user, so that its values have
//! the same form, the same checks and the same errors as on the command line.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::file::{Entry, Value};
use crate::flags::Net;
use crate::similar::similar;

/// Options that a profile cannot have: they choose what is run, not how.
const NOT_IN_PROFILES: [&str; 3] = ["profile", "spec", "dry-run"];

/// Options that let a guest connect.
const RULES: [&str; 3] = ["allow-net", "deny-net", "net-policy"];

/// An entry that is not an option of `run`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EntryError {
    /// No option has this name.
    #[error("there is no key {key:?}: {}", instead(similar.as_deref()))]
    Unknown {
        /// The key.
        key: String,
        /// The key that it may be.
        similar: Option<String>,
    },
    /// A switch has another value than `true` and `false`.
    #[error("{0:?} is true or false")]
    Switch(String),
    /// An option that takes a value has `true` or `false`.
    #[error("{0:?} is not true or false: write a text or a number")]
    NoSwitch(String),
    /// An option that is given once has a list.
    #[error("{0:?} takes one value: write it without [ and ]")]
    List(String),
}

fn instead(similar: Option<&str>) -> String {
    match similar {
        Some(similar) => format!("did you mean {similar:?}?"),
        None => "keys are the long options of `metaservice run`".to_owned(),
    }
}

fn is_rule(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| RULES.contains(&long))
}

/// What the user gives on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// The command `run`.
    pub(crate) run: &'a Command,
    /// Its options and values. `None`: nothing is given.
    pub(crate) matches: Option<&'a ArgMatches>,
}

impl Given<'_> {
    /// Whether the user gives this option.
    pub(crate) fn has(self, arg: &Arg) -> bool {
        let id = arg.get_id().as_str();
        let source = self.matches.and_then(|matches| matches.value_source(id));
        source == Some(ValueSource::CommandLine)
    }

    /// Whether the user gives an option that excludes this one. `--net none` excludes rules.
    fn excludes(self, arg: &Arg) -> bool {
        let net = self.matches.and_then(|matches| matches.try_get_one::<Net>("net").ok().flatten());
        let is_off = net == Some(&Net::None);
        if is_off && is_rule(arg) {
            return true;
        }
        let excluded = |arg: &Arg, other: &Arg| {
            let others = self.run.get_arg_conflicts_with(arg);
            others.into_iter().any(|found| found.get_id() == other.get_id())
        };
        let others = self.run.get_arguments().filter(|other| self.has(other));
        others.into_iter().any(|other| excluded(arg, other) || excluded(other, arg))
    }

    /// The option that an entry means.
    ///
    /// # Errors
    /// There is no such option.
    pub(crate) fn option(&self, key: &str) -> Result<&Arg, EntryError> {
        let options = self.run.get_arguments().filter(|arg| !arg.is_hide_set());
        let options = options.filter(|arg| !arg.is_global_set());
        let long = |arg: &Arg| arg.get_long().unwrap_or_default().to_owned();
        let options = options
            .filter(|arg| arg.get_long().is_some_and(|long| !NOT_IN_PROFILES.contains(&long)));
        let options: Vec<&Arg> = options.collect();
        options.iter().find(|arg| arg.get_long() == Some(key)).copied().ok_or_else(|| {
            let names: Vec<String> = options.iter().map(|arg| long(arg)).collect();
            EntryError::Unknown { key: key.to_owned(), similar: similar(key, &names) }
        })
    }

    /// The arguments of an entry, ahead of the user's own. None, if the user gives the option
    /// too or one that excludes it. An option that can be repeated has the values of both.
    ///
    /// # Errors
    /// [`EntryError`].
    pub(crate) fn arguments(&self, entry: &Entry) -> Result<Vec<OsString>, EntryError> {
        let key = &entry.key;
        let arg = self.option(key)?;
        let repeatable = matches!(arg.get_action(), ArgAction::Append);
        let takes_value = arg.get_action().takes_values();
        let needs_value = takes_value && arg.get_num_args().is_none_or(|n| n.min_values() > 0);
        let with = |value: &String| OsString::from(format!("--{key}={value}"));
        let arguments = match &entry.value {
            Value::One(_) | Value::Many(_) if !takes_value => {
                return Err(EntryError::Switch(key.clone()));
            }
            Value::Switch(_) if needs_value => return Err(EntryError::NoSwitch(key.clone())),
            Value::Switch(true) => vec![format!("--{key}").into()],
            Value::Switch(false) => Vec::new(),
            Value::One(value) => vec![with(value)],
            Value::Many(values) if repeatable => values.iter().map(with).collect(),
            Value::Many(_) => return Err(EntryError::List(key.clone())),
        };
        let none = key == "net" && matches!(&entry.value, Value::One(value) if value == "none");
        let overridden = self.has(arg) && !repeatable
            || self.excludes(arg)
            || none && self.run.get_arguments().any(|other| is_rule(other) && self.has(other));
        Ok(if overridden { Vec::new() } else { arguments })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn entry(key: &str, value: Value) -> Entry {
        Entry { key: key.to_owned(), value, line: 1 }
    }

    fn one(text: &str) -> Value {
        Value::One(text.to_owned())
    }

    fn many(texts: &[&str]) -> Value {
        Value::Many(texts.iter().map(ToString::to_string).collect())
    }

    /// The arguments of an entry when the user gives `words`.
    fn arguments(words: &[&str], key: &str, value: Value) -> Result<Vec<String>, String> {
        let mut cli = Cli::command();
        cli.build();
        let run = cli.find_subcommand("run").unwrap().clone();
        let words = ["metaservice", "run"].into_iter().chain(words.iter().copied());
        let matches = cli.ignore_errors(true).get_matches_from(words);
        let given = Given { run: &run, matches: matches.subcommand_matches("run") };
        let arguments = given.arguments(&entry(key, value)).map_err(|error| error.to_string())?;
        Ok(arguments.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn an_entry_becomes_arguments() {
        let without = |key, value| arguments(&["--", "true"], key, value).unwrap();
        assert_eq!(without("memory", one("2G")), ["--memory=2G"]);
        assert_eq!(without("tty", Value::Switch(true)), ["--tty"]);
        assert_eq!(without("tty", Value::Switch(false)), [""; 0]);
        assert_eq!(without("env", many(&["A=1", "B=-x"])), ["--env=A=1", "--env=B=-x"]);
        assert_eq!(without("env", one("A=1")), ["--env=A=1"]);
        assert_eq!(without("env", many(&[])), [""; 0]);
    }

    #[test]
    fn the_command_line_wins_and_adds_to_what_can_be_repeated() {
        let with = |words: &[&str], key, value| arguments(words, key, value).unwrap();
        assert_eq!(with(&["--memory", "1G", "--", "x"], "memory", one("2G")), [""; 0]);
        assert_eq!(with(&["-t", "--", "x"], "tty", Value::Switch(true)), [""; 0]);
        assert_eq!(with(&["-e", "A=2", "--", "x"], "env", one("A=1")), ["--env=A=1"]);
        // What excludes it on the command line takes its place.
        assert_eq!(with(&["--rootfs", "/", "--", "x"], "image", one("debian")), [""; 0]);
        assert_eq!(with(&["--image", "debian", "--", "x"], "rootfs", one("/")), [""; 0]);
        let rule = || many(&["a.example"]);
        assert_eq!(with(&["--net", "none", "--", "x"], "allow-net", rule()), [""; 0]);
        assert_eq!(
            with(&["--net", "open", "--", "x"], "allow-net", rule()),
            ["--allow-net=a.example"]
        );
        assert_eq!(with(&["--net", "none", "--", "x"], "net-policy", one("pip")), [""; 0]);
        assert_eq!(with(&["--allow-net", "a", "--", "x"], "net", one("none")), [""; 0]);
        assert_eq!(with(&["--allow-net", "a", "--", "x"], "net", one("open")), ["--net=open"]);
        // The words of the command are not options.
        assert_eq!(with(&["--", "x", "--memory=1G"], "memory", one("2G")), ["--memory=2G"]);
    }

    #[test]
    fn a_wrong_entry_is_refused_with_what_to_write() {
        let wrong = |key, value| arguments(&["--", "true"], key, value).unwrap_err();
        assert!(wrong("memroy", one("2G")).ends_with("did you mean \"memory\"?"));
        assert!(wrong("frobnicate", one("2G")).contains("long options of `metaservice run`"));
        // A profile cannot have these: other choices of what to run, options of all verbs, hidden
        // options, short names and arguments.
        for key in ["spec", "profile", "dry-run", "json", "help", "old_no_snapshot", "command", "m"]
        {
            assert!(wrong(key, Value::Switch(true)).starts_with("there is no key"), "{key}");
        }
        assert_eq!(wrong("tty", one("yes")), "\"tty\" is true or false");
        assert!(wrong("memory", Value::Switch(true)).contains("a text or a number"));
        assert!(wrong("memory", many(&["1G"])).contains("takes one value"));
        assert!(wrong("env", Value::Switch(false)).contains("a text or a number"));
    }
}
