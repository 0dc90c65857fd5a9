//! `metaservice net publish JOB SPEC`: publishes a port of a running guest.

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_sandbox::job;
use serde_json::json;

use super::job::{answer, client};
use crate::completions;
use crate::output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
The address of the host is printed. The port is published until the job ends.

Examples:
  metaservice net publish web 8080:80
  metaservice net publish web 0:80           the host picks a port
  metaservice net publish web 0.0.0.0:53:53/udp";

/// Publish a port of a running guest on the host.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Publish {
    /// The name of the job.
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(completions::jobs))]
    job: String,
    /// The port: [ADDR:]PORT:GUEST_PORT[/udp].
    #[arg(value_name = "SPEC")]
    spec: String,
}

pub(super) async fn publish(args: Publish, printer: Printer) -> Result<ExitStatus> {
    let Publish { job, spec } = args;
    let parsed: job::Publish = spec.parse().context("in SPEC")?;
    let published = client(&job).await?.publish(parsed.to_string()).await;
    let published = answer(published, || format!("cannot publish {spec} of {job}"))?;
    match printer.is_json() {
        true => output::line(json!({ "address": published.address }))?,
        false => output::line(published.address)?,
    }
    Ok(ExitStatus::SUCCESS)
}
