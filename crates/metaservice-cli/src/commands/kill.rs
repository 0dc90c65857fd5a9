//! `metaservice kill JOB`: kill the job's command and everything under it.

use anyhow::{Context, Result};

use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn kill(job: &str) -> Result<ExitStatus> {
    let client = sockets::find(job).await?;
    client.kill().await.with_context(|| format!("cannot kill {job}"))?;
    Ok(ExitStatus::SUCCESS)
}
