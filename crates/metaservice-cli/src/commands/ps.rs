//! `metaservice ps`: lists the jobs of this user on this host.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use metaservice::control::{Job, JobState};
use metaservice_sandbox::control::{self, Running};
use metaservice_sandbox::history::PastJob;
use serde_json::json;
use tokio::task::JoinSet;

use crate::output;
use crate::output::contact;
use crate::output::printer::{Printer, json_text, printable};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice ps -a
  metaservice ps -q | xargs -r -n1 metaservice kill";

/// List the running jobs.
///
/// With -q, print only their names.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Ps {
    /// Also list the jobs that have ended, as far as they are kept.
    ///
    /// A job is lost if the process that ran it was killed.
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// How long a job may take to answer: one that is stopped does not hide the others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a job that does not answer.
const SILENT: &str = "silent";

/// A job, or the process that should have told of it.
enum Row {
    JobFacts(Box<Job>),
    Ended(Box<PastJob>),
    Silent { name: String, pid: Option<i32> },
}

pub(crate) async fn ps(args: &Ps, printer: Printer) -> Result<ExitStatus> {
    let mut asking = JoinSet::new();
    for Running { name, pid, client } in control::all().await? {
        asking.spawn(async move {
            let row = match tokio::time::timeout(ANSWER_TIMEOUT, client.job()).await {
                Ok(Ok(job)) => Row::JobFacts(Box::new(job)),
                // The job may have just ended. That is not an error.
                Ok(Err(_)) => return None,
                Err(_) => Row::Silent { name: name.clone(), pid },
            };
            Some((name, row))
        });
    }
    let mut rows = BTreeMap::new();
    if args.all {
        let past = control::all_past()?.into_iter();
        rows.extend(past.map(|past| (past.job.name.clone(), Row::Ended(Box::new(past)))));
    }
    rows.extend(asking.join_all().await.into_iter().flatten());
    if printer.is_quiet() {
        for name in rows.keys() {
            output::line(printable(name))?;
        }
        return Ok(ExitStatus::SUCCESS);
    }
    if printer.is_json() {
        let all: Vec<_> = rows.values().map(Row::json).collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    output::line(format_args!("{:<20} {:<10} {:<8} COMMAND", "NAME", "STATE", "PID"))?;
    for row in rows.values() {
        output::line(row.line()?)?;
    }
    Ok(ExitStatus::SUCCESS)
}

impl Row {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::JobFacts(job) => json!(job),
            Self::Ended(past) => json!(past),
            Self::Silent { name, pid } => json!({ "name": name, "state": SILENT, "pid": pid }),
        }
    }

    fn line(&self) -> Result<String> {
        Ok(match self {
            Self::Ended(past) => {
                let state = serde_json::to_value(past.job.state)?;
                let state = state.as_str().unwrap_or_default();
                let command = printable(&past.job.command.join(" ")).replace('\n', " ");
                format!("{:<20} {state:<10} {:<8} {command}", past.job.name, "-")
            }
            Self::JobFacts(job) => {
                let state = serde_json::to_value(job.state)?;
                let ended =
                    matches!(job.state, JobState::Succeeded | JobState::Failed | JobState::Kept);
                let contact = contact::word(job.contact).filter(|_| !ended);
                let state = contact.or(state.as_str()).unwrap_or_default();
                let command = printable(&job.command.join(" ")).replace('\n', " ");
                format!("{:<20} {state:<10} {:<8} {command}", job.name, job.pid)
            }
            Self::Silent { name, pid } => {
                let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
                let told = "(does not answer: stopped or stuck)";
                format!("{:<20} {SILENT:<10} {pid:<8} {told}", printable(name))
            }
        })
    }
}
