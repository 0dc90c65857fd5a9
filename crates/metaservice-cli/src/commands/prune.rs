//! `metaservice prune`: removes all jobs that have ended, with their logs.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use metaservice_sandbox::control;
use metaservice_sandbox::history::PastJob;
use serde::Serialize;
use serde_json::json;

use super::fleet::MaybeQueue;
use crate::description;
use crate::hints;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice prune
  metaservice prune --older-than 7d
  metaservice prune --queue nats://queue.example:4222 --older-than 30d";

/// Remove all jobs that have ended, with their logs.
///
/// Prints the names of the removed jobs. Each start of a job also removes old jobs: see the limits
/// history-jobs, history-age and history-size in "metaservice help limits".
///
/// With --queue, it removes the jobs of a queue, with their logs and artifacts, and what is left of
/// uploads that were cut off more than a day ago. Then it needs --older-than, because these jobs may
/// be those of others. METASERVICE_QUEUE alone does not do this.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Prune {
    /// Remove only jobs that ended longer ago than this.
    #[arg(long, value_name = "DURATION")]
    pub(crate) older_than: Option<String>,
    /// With --queue: remove only the logs in the queue, and only those that workers have kept in a
    /// --store.
    #[arg(long)]
    pub(crate) stored_logs: bool,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

pub(crate) async fn prune(args: &Prune, printer: Printer) -> Result<ExitStatus> {
    let age = description::period(args.older_than.as_deref(), "--older-than")?;
    let age = age.map(metaservice_sandbox::spec::Period::get);
    if args.queue.is_named() {
        let age = age.ok_or_else(|| {
            let hint = "--older-than 1s removes all that have ended before now";
            hints::hinted(hint, "to remove jobs of a queue, say how old they are: --older-than")
        })?;
        let removed = args.queue.args().prune(age, args.stored_logs).await?;
        return print(&removed, printer);
    }
    if args.stored_logs {
        let hint = "METASERVICE_QUEUE alone is not enough: name the queue with --queue";
        return Err(hints::hinted(hint, "--stored-logs is for the logs of a queue"));
    }
    let old = |past: &PastJob| age.is_none_or(|age| is_older(past, age, SystemTime::now()));
    let removed = control::prune(old).await.map_err(hints::control)?;
    print(&removed, printer)
}

fn print(removed: &[impl Serialize + Display], printer: Printer) -> Result<ExitStatus> {
    if printer.is_json() {
        output::line(json_text(&json!(removed).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for name in removed {
        output::line(name)?;
    }
    Ok(ExitStatus::SUCCESS)
}

/// Whether a job ended longer ago than `age`. A lost job counts from its start.
pub(crate) fn is_older(past: &PastJob, age: Duration, now: SystemTime) -> bool {
    let ended = UNIX_EPOCH + Duration::from_millis(past.ended_ms.unwrap_or(past.job.started_ms));
    now.duration_since(ended).is_ok_and(|since| since > age)
}

#[cfg(test)]
mod tests {
    use metaservice_sandbox::history::PastJob;

    use super::*;

    #[test]
    fn a_job_is_as_old_as_its_end_or_its_start_if_it_is_lost() {
        let ended = r#"{"name":"a","command":[],"state":"failed","pid":1,"endedMs":5000}"#;
        let lost = r#"{"name":"a","command":[],"state":"lost","pid":1,"startedMs":5000}"#;
        for past in [ended, lost] {
            let past: PastJob = serde_json::from_str(past).unwrap();
            let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
            let age = Duration::from_secs(10);
            assert!(!is_older(&past, age, at(15)) && is_older(&past, age, at(16)));
            // If the clock was set back, no job is old.
            assert!(!is_older(&past, age, at(1)));
        }
    }
}
