//! `metaservice rm JOB...`: removes jobs that have ended, with their logs.

use anyhow::Result;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_sandbox::control;

use crate::completions;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice rm build
  metaservice rm --force db";

/// Remove jobs that have ended, with their logs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Rm {
    /// Kill a job that runs, with its machine, and remove it. Its artifacts are not fetched.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The names of the jobs.
    #[arg(value_name = "JOB", required = true, add = ArgValueCompleter::new(completions::all_jobs))]
    pub(crate) jobs: Vec<String>,
}

pub(crate) async fn rm(args: Rm, printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let mut status = ExitStatus::SUCCESS;
    for job in &args.jobs {
        let removed = tokio::select! {
            removed = control::remove(job, args.force) => removed,
            interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
        };
        // One that cannot be removed does not hold up the others.
        if let Err(error) = removed {
            printer.error(&hints::control(error));
            status = ExitStatus::FAILED;
        }
    }
    Ok(status)
}
