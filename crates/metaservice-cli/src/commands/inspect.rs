//! `metaservice inspect JOB...`: prints all details of jobs as JSON.

use anyhow::{Context, Result};
use clap::Args;
use metaservice_sandbox::control::{self, Found};

use super::each::each;
use super::fleet::{MaybeQueue, jobs};
use crate::flags::AnyJobNames;
use crate::hints;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice inspect build | jq .state
  metaservice inspect --queue local 1f2e3d4c5b6a | jq .why

For several jobs, one JSON value follows the other. Exit status: 0, or 125 if a job is missing.";

/// Show everything about jobs, as JSON.
///
/// A job that has ended is shown with its description, its artifacts and its directory, as long as
/// it is kept. With --queue, JOB is the id of a job of that queue: it is shown as "jobs --json" does,
/// with its request and its outcome.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) names: AnyJobNames,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

pub(crate) async fn inspect(args: Inspect, printer: Printer) -> Result<ExitStatus> {
    if let Some(first) = args.names.jobs.first()
        && args.queue.has(first).await
    {
        let inspected = jobs::Inspected::read(args.queue.args()).await?;
        let of_queue = async |id: String| inspected.one(&id);
        let print = |text: String| Ok(output::line(json_text(&text))?);
        return each(args.names.jobs, printer, of_queue, print).await;
    }
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
