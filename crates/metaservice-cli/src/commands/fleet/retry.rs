//! `metaservice retry`: submit a job of a queue again.

use anyhow::{Result, ensure};
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::ReadError;

use super::{QueueArgs, submit};
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// Submit a job of a queue again as a new job, and print the new id.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The id of the job.
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn retry(args: Retry, printer: Printer) -> Result<ExitStatus> {
    let queue = args.queue.connect().await?;
    let job = queue.job(&args.id).await?.ok_or_else(|| ReadError::NoJob(args.id.clone()))?;
    let mut request = (*job.request).clone();
    let is_open = request.sealed.is_none();
    ensure!(is_open, "the job has secrets, which are for its own id: submit it again");
    // Both times were meant for the first job.
    (request.not_before, request.deadline) = (None, None);
    let id = JobId::random();
    submit::check_room(&queue, &request.tenant, &[&id]).await?;
    submit::hand_over(&queue, &id, &request, printer).await?;
    Ok(ExitStatus::SUCCESS)
}
