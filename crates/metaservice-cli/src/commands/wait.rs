//! `metaservice wait JOB`: waits until a job ends, prints its status, and exits with it.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::flags::JobName;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice wait build && echo it succeeded

Exit status: that of the job.";

/// Wait until a job ends, print its status, and exit with it.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn wait(args: Wait, printer: Printer) -> Result<ExitStatus> {
    let client =
        metaservice_sandbox::control::find(&args.name.job).await.map_err(hints::control)?;
    let mut interrupts = Interrupts::listen()?;
    let job = tokio::select! {
        job = client.wait() => job.with_context(|| format!("cannot wait for {}", args.name.job))?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    // The exit status is the result, even if the output cannot be written.
    let status = job.status.context("the job ended without a status")?;
    if printer.is_json() {
        let _ = output::line(json_text(&json!(job).to_string()));
    } else {
        let _ = output::line(status);
    }
    Ok(ExitStatus(status))
}
