//! `metaservice inspect JOB...`: prints all details of jobs as JSON.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_sandbox::control::{self, Found};

use super::each::each;
use crate::flags::AnyJobNames;
use crate::hints;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice inspect build | jq .state

For several jobs, one JSON value follows the other. Exit status: 0, or 125 if a job is missing.";

/// Show everything about jobs, as JSON.
///
/// A job that has ended is shown with its description, its artifacts and its directory, as long as
/// it is kept.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) names: AnyJobNames,
}

pub(crate) async fn inspect(args: Inspect, printer: Printer) -> Result<ExitStatus> {
    each(args.names.jobs, printer, one, |text| Ok(output::line(json_text(&text))?)).await
}

/// All details of a job.
async fn one(name: String) -> Result<String> {
    Ok(match control::lookup(&name).await.map_err(hints::any_job)? {
        Found::Ended(past) => serde_json::to_string_pretty(&past)?,
        Found::Running(client) => {
            let job = client.job().await.with_context(|| format!("cannot inspect {name}"))?;
            serde_json::to_string_pretty(&job)?
        }
        _ => anyhow::bail!("cannot inspect {name}"),
    })
}
