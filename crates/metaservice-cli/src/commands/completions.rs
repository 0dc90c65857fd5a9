//! `metaservice completions SHELL`: a script that asks this tool, so that the names of the
//! jobs that run complete too.

use anyhow::{Context, Result};
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::output::Output;
use crate::status::ExitStatus;

/// The variable by which the script asks for candidates; also named in `main`.
pub(crate) const VARIABLE: &str = "METASERVICE_COMPLETE";

pub(crate) fn completions(shell: Shell) -> Result<ExitStatus> {
    let shells = Shells::builtins();
    let script = shells.completer(&shell.to_string()).context("no script for this shell")?;
    let name = "metaservice";
    script.write_registration(VARIABLE, name, name, name, &mut Output::lock())?;
    Ok(ExitStatus::SUCCESS)
}
