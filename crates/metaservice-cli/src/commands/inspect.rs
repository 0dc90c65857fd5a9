//! `metaservice inspect JOB`: all that is known of a job, as JSON.

use anyhow::{Context, Result};

use crate::args::JobName;
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn inspect(name: JobName) -> Result<ExitStatus> {
    let client = sockets::find(&name.job).await?;
    let job = client.job().await.with_context(|| format!("cannot inspect {}", name.job))?;
    // JSON escapes what a terminal would act on.
    println!("{}", serde_json::to_string_pretty(&job)?);
    Ok(ExitStatus::SUCCESS)
}
