//! `metaservice rm JOB...`: removes jobs that have ended, with their logs.

use anyhow::Result;
use clap::Args;
use metaservice_sandbox::control;

use super::each::each;
use crate::flags::AnyJobNames;
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
    #[command(flatten)]
    pub(crate) names: AnyJobNames,
}

pub(crate) async fn rm(args: Rm, printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let force = args.force;
    let remove = async |job: String| control::remove(&job, force).await.map_err(hints::any_job);
    tokio::select! {
        removed = each(args.names.jobs, printer, remove, Ok) => removed,
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}
