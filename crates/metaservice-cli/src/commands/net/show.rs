//! `metaservice net show JOB`: prints what a guest may connect to.

use anyhow::Result;
use clap::Args;

use super::job::{answer, client};
use crate::flags::JobName;
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::status::ExitStatus;

const HELP: &str = "\
Each line is a rule. Rules that deny win. \"metaservice inspect JOB\" has the published
ports and the number of attempts.

Example:
  metaservice net show build";

/// Show what the guest of a job may connect to.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Show {
    #[command(flatten)]
    name: JobName,
}

pub(super) async fn show(args: Show, printer: Printer) -> Result<ExitStatus> {
    let job = args.name.job;
    let policy = client(&job).await?.network_policy().await;
    let policy = answer(policy, || format!("cannot show the network of {job}"))?;
    if printer.is_json() {
        output::line(json_text(&serde_json::to_string(&policy)?))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let deny = policy.deny.iter().map(|rule| format!("deny   {rule}"));
    for line in deny.chain(policy.allow.iter().map(|rule| format!("allow  {rule}"))) {
        output::line(printable(&line))?;
    }
    Ok(ExitStatus::SUCCESS)
}
