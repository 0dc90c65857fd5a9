//! `metaservice completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::status::ExitStatus;

pub(crate) fn completions(shell: Shell) -> ExitStatus {
    clap_complete::generate(shell, &mut Cli::command(), "metaservice", &mut std::io::stdout());
    ExitStatus::SUCCESS
}
