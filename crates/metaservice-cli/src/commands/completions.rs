//! `metaservice completions SHELL`: prints a completion script.
//!
//! The script calls this tool for completions, so that the names of running jobs complete too.
//!
//! Bash splits a word at each colon, and completes only the last part. A function around the one of
//! `clap_complete` joins the parts of `JOB:PATH` again.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::output::Output;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  echo 'source <(metaservice completions bash)' >> ~/.bashrc
  echo 'source <(metaservice completions zsh)' >> ~/.zshrc
  metaservice completions fish > ~/.config/fish/completions/metaservice.fish";

/// Print a completion script for a shell.
///
/// It also completes the names of jobs, images, profiles, signals and limits, and paths in a guest,
/// such as job:/et. Names of files with spaces or special characters are not offered.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

/// The variable by which the script asks for completions. `main` uses it too.
pub(crate) const VARIABLE: &str = "METASERVICE_COMPLETE";

/// The function that joins words at colons, for bash.
const COLONS: &str = include_str!("completions.bash");

pub(crate) fn completions(args: &Completions) -> Result<ExitStatus> {
    let shells = Shells::builtins();
    let script = shells.completer(&args.shell.to_string()).context("no script for this shell")?;
    let name = "metaservice";
    let mut text = Vec::new();
    script.write_registration(VARIABLE, name, name, name, &mut text)?;
    let text = String::from_utf8(text).context("the script is not text")?;
    let text = match args.shell {
        Shell::Bash => text.replace("-F _clap_complete_metaservice ", "-F _metaservice ") + COLONS,
        _ => text,
    };
    Output::lock().write_all(text.as_bytes())?;
    Ok(ExitStatus::SUCCESS)
}
