//! `metaservice inspect JOB`: all that is known of a job, as JSON.

use anyhow::{Context, Result};

use crate::args::JobName;
use crate::hints;
use crate::output;
use crate::output::printer::json_text;
use crate::status::ExitStatus;

pub(crate) async fn inspect(name: JobName) -> Result<ExitStatus> {
    let client = metaservice_sandbox::control::find(&name.job).await.map_err(hints::control)?;
    let job = client.job().await.with_context(|| format!("cannot inspect {}", name.job))?;
    output::line(json_text(&serde_json::to_string_pretty(&job)?))?;
    Ok(ExitStatus::SUCCESS)
}
