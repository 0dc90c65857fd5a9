//! `metaservice drain`: end a worker after its jobs.

use anyhow::Result;
use clap::Args;
use metaservice_fleet::name::WorkerName;

use super::QueueArgs;
use crate::status::ExitStatus;

/// Make a worker finish its jobs, take no others, and end.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The name of the worker.
    #[arg(value_name = "WORKER")]
    pub(crate) worker: WorkerName,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn drain(args: Drain) -> Result<ExitStatus> {
    args.queue.connect().await?.drain(&args.worker).await?;
    Ok(ExitStatus::SUCCESS)
}
