//! `metaservice inspect JOB`: prints all details of a job as JSON.

use anyhow::{Context, Result};
use clap::Args;

use crate::flags::JobName;
use crate::hints;
use crate::output;
use crate::output::printer::json_text;
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice inspect build | jq .state";

/// Show everything about a job, as JSON.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn inspect(args: Inspect) -> Result<ExitStatus> {
    let client =
        metaservice_sandbox::control::find(&args.name.job).await.map_err(hints::control)?;
    let job = client.job().await.with_context(|| format!("cannot inspect {}", args.name.job))?;
    output::line(json_text(&serde_json::to_string_pretty(&job)?))?;
    Ok(ExitStatus::SUCCESS)
}
