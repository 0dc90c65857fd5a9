//! The configuration file, with profiles for the options of `run`.
//!
//! This module owns where the file is, and its profiles. A job whose profile is wrong is not
//! started: the error names the file and the line.

mod file;
mod profile;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use clap_complete::CompletionCandidate;
use metaservice_private::bases::BaseDirectory;

use self::file::{Entry, Profiles};
pub(crate) use self::profile::Given;
use crate::completions::fitting;
use crate::hints::hinted;
use crate::output::printer::Hint;

/// The variable that names another file. If it is empty, no file is read.
const VARIABLE: &str = "METASERVICE_CONFIG";

/// The profile of a `run` without `--profile`, if the file has it.
const DEFAULT: &str = "default";

/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The text of `metaservice help config`.
pub(crate) const HELP: &str = "\
A configuration file has profiles: options of \"run\" under a name.

  [profile.ci]
  image = \"debian\"
  memory = \"2G\"
  cpus = 2
  env = [\"CI=1\", \"HOME\"]

  metaservice run --profile ci -- make test

The file is $XDG_CONFIG_HOME/metaservice/config.toml, or ~/.config/metaservice/config.toml. The
variable METASERVICE_CONFIG names another file. If it is empty, no file is read.

Keys are the long options of \"run\" without the dashes. An option that can be repeated takes a list.
An option without a value is true or false.

Options on the command line win over the profile. An option that can be repeated has the values of
the profile, then those of the command line.

A run without --profile uses the profile \"default\", if the file has it. Only one profile is used.

\"metaservice doctor\" says which file is read, and checks it. --dry-run=json shows the result.
";

/// The configuration file of this user.
#[derive(Debug)]
pub(crate) struct Config {
    path: PathBuf,
    profiles: Profiles,
}

impl Config {
    /// Reads the file. `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is not understood.
    pub(crate) fn of_user() -> Result<Option<Self>> {
        let (path, named) = match std::env::var_os(VARIABLE) {
            Some(value) if value.is_empty() => return Ok(None),
            Some(value) => (PathBuf::from(value), true),
            None => match usual_path() {
                Some(path) => (path, false),
                None => return Ok(None),
            },
        };
        let text = match read(&path) {
            Err(error) if !named && is_missing(&error) => return Ok(None),
            Err(error) if named => Err(error)
                .with_context(|| format!("cannot read {} ({VARIABLE})", path.display()))?,
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Self::parse(path, &text).map(Some)
    }

    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// The text is not understood.
    pub(crate) fn parse(path: PathBuf, text: &str) -> Result<Self> {
        match file::parse(text) {
            Ok(profiles) => Ok(Self { path, profiles }),
            Err(error) => Err(Error::msg(format!("{}:{}: {error}", path.display(), error.line))),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the profiles.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }

    /// Checks each profile for `run`, as far as no other option is needed for it.
    ///
    /// # Errors
    /// The first entry that is wrong.
    pub(crate) fn check(&self, run: &clap::Command) -> Result<()> {
        let given = Given { run, matches: None };
        for name in self.names() {
            let profile = self.profile(name)?;
            let arguments = profile.arguments(given)?.into_iter();
            let words = ["run".into()].into_iter().chain(arguments);
            let words = words.chain(["--", "true"].map(OsString::from));
            if let Err(error) = run.clone().try_get_matches_from(words) {
                return Err(profile.applied(given).explain(Error::msg(paragraph(&error))));
            }
        }
        Ok(())
    }

    /// The profile for a run: the one that is named, or the default one if the file has it.
    ///
    /// # Errors
    /// There is no profile of this name.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<Option<Profile<'_>>> {
        match name {
            None if !self.profiles.contains_key(DEFAULT) => Ok(None),
            name => self.profile(name.unwrap_or(DEFAULT)).map(Some),
        }
    }

    fn profile(&self, name: &str) -> Result<Profile<'_>> {
        let path = self.path.display();
        match self.profiles.get_key_value(name) {
            Some((name, entries)) => Ok(Profile { path: &self.path, name, entries }),
            None if self.profiles.is_empty() => {
                let hint = format!("write [profile.{name}] in {path}; see metaservice help config");
                Err(hinted(hint, format!("there is no profile {name:?}: {path} has none")))
            }
            None => {
                let names: Vec<_> = self.names().collect();
                let hint = format!("there are {}", names.join(", "));
                Err(hinted(hint, format!("there is no profile {name:?} in {path}")))
            }
        }
    }
}

fn usual_path() -> Option<PathBuf> {
    Some(BaseDirectory::config()?.path().join("metaservice/config.toml"))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(text)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// One profile of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile<'a> {
    path: &'a Path,
    name: &'a str,
    entries: &'a [Entry],
}

impl Profile<'_> {
    /// Its arguments, for a place before those of the user.
    ///
    /// # Errors
    /// An entry is not an option of `run`.
    pub(crate) fn arguments(&self, given: Given<'_>) -> Result<Vec<OsString>> {
        let mut all = Vec::new();
        for entry in self.entries {
            let arguments = given.arguments(entry);
            all.extend(arguments.with_context(|| self.place(entry.line))?);
        }
        Ok(all)
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}: in profile {}", self.path.display(), self.name)
    }

    /// What explains the errors of a run with this profile.
    pub(crate) fn applied(&self, given: Given<'_>) -> Applied {
        let entries = self.entries.iter().map(|entry| {
            let also_given = given.option(&entry.key).is_ok_and(|arg| given.has(arg));
            AppliedEntry {
                flag: format!("--{}", entry.key),
                place: self.place(entry.line),
                also_given,
            }
        });
        Applied { entries: entries.collect() }
    }
}

/// The profile of a run, for its errors.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    entries: Vec<AppliedEntry>,
}

#[derive(Debug, Clone)]
struct AppliedEntry {
    flag: String,
    place: String,
    also_given: bool,
}

impl Applied {
    /// An error of a run, with the line of the file if the error is about a value of the profile.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let text = format!("{error:#}");
        let mut flags = text
            .lines()
            .next()
            .unwrap_or_default()
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let mut named = flags.by_ref().filter(|word| word.len() > 2 && word.starts_with("--"));
        let entry = |flag: &str| self.entries.iter().find(|entry| entry.flag == flag);
        let Some(first) = named.next() else { return error };
        if let Some(entry) = entry(first).filter(|entry| !entry.also_given) {
            return error.context(entry.place.clone());
        }
        let has_hint = error.chain().any(|cause| cause.downcast_ref::<Hint>().is_some());
        match std::iter::once(first).chain(named).find_map(entry) {
            Some(entry) if !has_hint => hinted(format!("{} is {}", entry.flag, entry.place), text),
            _ => error,
        }
    }
}

/// Completes the names of the profiles.
pub(crate) fn complete(typed: &OsStr) -> Vec<CompletionCandidate> {
    let config = Config::of_user().ok().flatten();
    let names = config.iter().flat_map(Config::names).map(str::to_owned);
    fitting(names, typed, "")
}

/// The error if a profile is named and no file is read.
pub(crate) fn no_file(name: &str) -> Error {
    let what = match std::env::var_os(VARIABLE) {
        Some(value) if value.is_empty() => format!("{VARIABLE} is empty, so no file is read"),
        _ => usual_path().map_or_else(
            || "you have no home directory".to_owned(),
            |path| format!("there is no file {}", path.display()),
        ),
    };
    hinted("see metaservice help config", format!("there is no profile {name:?}: {what}"))
}

/// The first paragraph of an error of the parser, as one line.
pub(crate) fn paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("error: ");
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
