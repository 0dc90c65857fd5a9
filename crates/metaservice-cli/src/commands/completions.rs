//! `metaservice completions SHELL`: prints a completion script.
//!
//! The script calls this tool for completions, so that the names of running jobs complete too.

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
/// It also completes the names of jobs and images.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

/// The variable by which the script asks for completions. `main` uses it too.
pub(crate) const VARIABLE: &str = "METASERVICE_COMPLETE";

pub(crate) fn completions(args: &Completions) -> Result<ExitStatus> {
    let shells = Shells::builtins();
    let script = shells.completer(&args.shell.to_string()).context("no script for this shell")?;
    let name = "metaservice";
    script.write_registration(VARIABLE, name, name, name, &mut Output::lock())?;
    Ok(ExitStatus::SUCCESS)
}
