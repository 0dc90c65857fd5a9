//! `metaservice workers`: the workers of a queue.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use metaservice_fleet::step::{Renewal, WorkerState};
use metaservice_fleet::view::LEASE;
use serde_json::{Value, json};

use super::QueueArgs;
use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::output::table;
use crate::status::ExitStatus;

/// List the workers of a queue.
///
/// A worker with a free slot that takes no job says why: "memory" if a job waits that needs more than
/// is left, "disk" if its disk is nearly full, "draining" if it ends. A worker is "lost" if it has
/// not renewed its lease for 15 s: it was killed, or it has no connection to the queue.
#[derive(Debug, Args)]
pub(crate) struct Workers {
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn workers(args: Workers, printer: Printer) -> Result<ExitStatus> {
    let workers = args.queue.connect().await?.workers().await?;
    if printer.is_json() {
        let all: Vec<_> = workers.iter().map(json_of).collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let head = ["NAME", "STATE", "REASON", "RUNNING", "SLOTS", "WARM", "VERSION", "LABELS"];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(workers.iter().map(row)).collect();
    for line in table::lines(&rows) {
        output::line(line)?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Whether a worker has not renewed its lease in time.
fn is_lost((_, age): &(Renewal, Duration)) -> bool {
    *age > LEASE
}

fn json_of(known: &(Renewal, Duration)) -> Value {
    let mut json = json!(known.0);
    json["lost"] = is_lost(known).into();
    json["renewedMsAgo"] = u64::try_from(known.1.as_millis()).unwrap_or(u64::MAX).into();
    json
}

fn row(known: &(Renewal, Duration)) -> Vec<String> {
    let worker = &known.0;
    let state = match worker.state {
        _ if is_lost(known) => "lost",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_renews_nothing_is_lost() {
        let renewal = json!({
            "worker": "w", "run": "r", "slots": 1, "running": 1, "state": "ready", "version": "1",
        });
        let worker: Renewal = serde_json::from_value(renewal).unwrap();
        let known = |worker: &Renewal, seconds| (worker.clone(), Duration::from_secs(seconds));
        assert_eq!(row(&known(&worker, 15))[1], "ready");
        assert_eq!(row(&known(&worker, 16))[1], "lost");
        assert_eq!(json_of(&known(&worker, 16))["lost"], true);
    }
}
