//! `metaservice inspect JOB`: all that is known of a job, as JSON.

use anyhow::{Context, Result};

use crate::args::JobName;
use crate::output;
use crate::printer::json_text;
use crate::sockets;
use crate::status::ExitStatus;

pub(crate) async fn inspect(name: JobName) -> Result<ExitStatus> {
    let client = sockets::find(&name.job).await?;
    let job = client.job().await.with_context(|| format!("cannot inspect {}", name.job))?;
    output::line(json_text(&serde_json::to_string_pretty(&job)?))?;
    Ok(ExitStatus::SUCCESS)
}
