//! `metaservice workers`: the workers of a queue.

use anyhow::Result;
use clap::Args;
use metaservice_fleet::step::{Renewal, WorkerState};
use serde_json::json;

use super::QueueArgs;
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::output::table;
use crate::status::ExitStatus;

/// List the workers of a queue.
///
/// A worker with a free slot that takes no job says why: "memory" if a job waits that needs more than
/// is left, "disk" if its disk is nearly full, "draining" if it ends.
#[derive(Debug, Args)]
pub(crate) struct Workers {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn workers(args: Workers, printer: Printer) -> Result<ExitStatus> {
    let view = args.queue.connect().await?.view().await?;
    if printer.is_json() {
        let all: Vec<_> = view.workers().collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let head = ["NAME", "STATE", "REASON", "RUNNING", "SLOTS", "WARM", "VERSION", "LABELS"];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(view.workers().map(row)).collect();
    for line in table::lines(&rows) {
        output::line(line)?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn row(worker: &Renewal) -> Vec<String> {
    let state = match worker.state {
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Gone => "gone",
        WorkerState::Unknown => "unknown",
    };
    let text = |text: &str| printable(text).replace('\n', " ");
    let labels = worker.labels.iter().cloned().collect::<Vec<_>>().join(",");
    vec![
        worker.worker.to_string(),
        state.to_owned(),
        text(worker.reason.as_deref().unwrap_or("-")),
        worker.running.to_string(),
        worker.slots.to_string(),
        worker.warm.to_string(),
        text(&worker.version),
        text(&labels),
    ]
}
