//! `metaservice inspect JOB`: prints all details of a job as JSON.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_sandbox::control::{self, Found};

use crate::flags::JobName;
use crate::hints;
use crate::output;
use crate::output::printer::json_text;
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice inspect build | jq .state";

/// Show everything about a job, as JSON.
///
/// A job that has ended also has its description, its artifacts and its directory, as long as it
/// is kept.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn inspect(args: Inspect) -> Result<ExitStatus> {
    let name = args.name.job;
    let text = match control::lookup(&name).await.map_err(hints::control)? {
        Found::Ended(past) => serde_json::to_string_pretty(&past)?,
        Found::Running(client) => {
            let job = client.job().await.with_context(|| format!("cannot inspect {name}"))?;
            serde_json::to_string_pretty(&job)?
        }
        _ => anyhow::bail!("cannot inspect {name}"),
    };
    output::line(json_text(&text))?;
    Ok(ExitStatus::SUCCESS)
}
