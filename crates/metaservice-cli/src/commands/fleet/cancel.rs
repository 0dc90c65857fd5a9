//! `metaservice cancel`: cancel jobs of a queue.

use anyhow::Result;
use clap::Args;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::Cancelled;

use super::QueueArgs;
use crate::commands::each::each;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice cancel 1f2e3d4c5b6a
  metaservice jobs -q --tenant course-101 | xargs -r metaservice cancel

Exit status: 0, or 125 if a job does not exist.";

/// Cancel jobs of a queue: a waiting job never starts, and a running one is killed.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Cancel {
    /// The ids of the jobs.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn cancel(args: Cancel, printer: Printer) -> Result<ExitStatus> {
    let queue = args.queue.connect().await?;
    let cancel_one = async |id: String| -> Result<(String, Cancelled)> {
        let cancelled = queue.cancel(&id.parse::<JobId>()?).await?;
        Ok((id, cancelled))
    };
    each(args.ids, printer, cancel_one, |(id, cancelled)| {
        if cancelled == Cancelled::Ended {
            printer.note(&format!("{id} had ended or was cancelled already"));
        }
        Ok(())
    })
    .await
}
