//! `metaservice kill [-s SIGNAL] JOB`: kill the job's command and everything under it, or send
//! its main process a signal.

use anyhow::{Context, Result};

use crate::args::KillArgs;
use crate::hints;
use crate::signals;
use crate::status::ExitStatus;

pub(crate) async fn kill(args: KillArgs) -> Result<ExitStatus> {
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
