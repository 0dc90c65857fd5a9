//! From the words of the command line to its values, with the options of a profile.
//!
//! This module owns the order: the options of the profile come before those of the user.

use std::ffi::OsString;

use anyhow::{Error, Result};
use clap::{CommandFactory, Parser};

use crate::cli::Cli;
use crate::commands::Command;
use crate::config::{self, Config, Given, paragraph};
use crate::flags::OutputArgs;

/// A command line that cannot be parsed.
#[derive(Debug)]
pub(crate) enum Unparsed {
    /// The words of the user are wrong, or ask for help.
    Words(clap::Error),
    /// The configuration file is wrong. The options say how to print that.
    Config(Error, OutputArgs),
}

impl From<clap::Error> for Unparsed {
    fn from(error: clap::Error) -> Self {
        Self::Words(error)
    }
}

/// Parses a command line. For `run`, the options of the profile come before those of the user.
///
/// # Errors
/// [`Unparsed`].
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, Unparsed> {
    let words: Vec<OsString> = words.into_iter().collect();
    parse_with(&words, Config::of_user)
}

fn parse_with(
    words: &[OsString],
    config: impl FnOnce() -> Result<Option<Config>>,
) -> Result<Cli, Unparsed> {
    let plain = || Ok(Cli::try_parse_from(words)?);
    // No option before the verb has a value.
    let verb = words.iter().skip(1).position(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let Some(verb) = verb.map(|place| place + 1).filter(|place| words[*place] == "run") else {
        return plain();
    };
    // An error of this is found again below. `--help` is one.
    let Ok(matches) = Cli::command().ignore_errors(true).try_get_matches_from(words) else {
        return plain();
    };
    let Some(given) = matches.subcommand_matches("run") else { return plain() };
    let name = given.get_one::<String>("profile");
    if given.contains_id("spec") {
        return plain();
    }
    let in_config = |error| {
        let json = matches!(given.try_get_one("json"), Ok(Some(true)));
        Unparsed::Config(error, OutputArgs { json, ..OutputArgs::default() })
    };
    let name = name.map(String::as_str);
    let config = match (config().map_err(in_config)?, name) {
        (Some(config), _) => config,
        (None, None) => return plain(),
        (None, Some(name)) => return Err(in_config(config::no_file(name))),
    };
    let Some(profile) = config.choose(name).map_err(in_config)? else { return plain() };
    let run = run_command();
    let given = Given { run: &run, matches: Some(given) };
    let mut expanded = words[..=verb].to_vec();
    expanded.extend(profile.arguments(given).map_err(in_config)?);
    expanded.extend_from_slice(&words[verb + 1..]);
    let applied = profile.applied(given);
    match Cli::try_parse_from(expanded) {
        Ok(mut cli) => {
            if let Command::Run(run) = &mut cli.command {
                run.applied = Some(applied);
            }
            Ok(cli)
        }
        // The error is the profile's, unless the words alone have it too.
        Err(error) => match Cli::try_parse_from(words) {
            Err(own) if paragraph(&own) == paragraph(&error) => Err(own.into()),
            _ => Err(in_config(applied.explain(Error::msg(paragraph(&error))))),
        },
    }
}

fn run_command() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    let run = cli.find_subcommand_mut("run").map(std::mem::take);
    run.unwrap_or_default()
}

#[cfg(test)]
mod pages;
#[cfg(test)]
mod tests;
