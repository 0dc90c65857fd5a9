//! `metaservice kill [-s SIGNAL] JOB`: kills the job's command and all its processes, or sends its
//! main process a signal.

use anyhow::{Context, Result};
use clap::Args;

use crate::flags::JobName;
use crate::hints;
use crate::signals;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice kill build
  metaservice kill -s HUP build";

/// Kill the command of a job, or send it a signal.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Kill {
    /// Send this signal to the main process of the command: TERM, SIGTERM or 15.
    ///
    /// Without this option, the command and all of its processes are killed.
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn kill(args: Kill) -> Result<ExitStatus> {
    let signal = args.signal.as_deref().map(signals::parse).transpose().context("in --signal")?;
    let job = args.name.job;
    let client = metaservice_sandbox::control::find(&job).await.map_err(hints::control)?;
    match signal {
        None => client.kill().await.with_context(|| format!("cannot kill {job}"))?,
        Some(signal) => client
            .signal(signal)
            .await
            .with_context(|| format!("cannot send signal {signal} to {job}"))?,
    }
    Ok(ExitStatus::SUCCESS)
}
