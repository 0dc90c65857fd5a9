//! `metaservice wait JOB`: waits until a job ends, prints its status, and exits with it.

use anyhow::{Context, Error, Result};
use clap::{Args, ValueEnum};
use metaservice::control::{Client, ClientError, Code, Job, JobState};
use metaservice_sandbox::control::{self, ControlError, Found};
use serde_json::json;

use crate::flags::JobName;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice wait build && echo it succeeded
  metaservice wait --for running db

Exit status: that of the job; with --for running 0, or 125 if the job has ended.";

/// Wait until a job ends, print its status, and exit with it.
///
/// A job that has ended is not waited for, as long as it is kept.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Wait {
    /// What to wait for.
    #[arg(long = "for", value_name = "EVENT", value_enum, default_value_t = Event::Ended)]
    pub(crate) event: Event,
    #[command(flatten)]
    pub(crate) name: JobName,
}

/// An event in the life of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Event {
    /// The guest has fetched the command.
    Running,
    /// The command has ended.
    Ended,
}

pub(crate) async fn wait(args: Wait, printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let name = args.name.job;
    let waiting = async {
        match args.event {
            Event::Running => running(&name).await,
            Event::Ended => ended(&name, printer).await,
        }
    };
    tokio::select! {
        status = waiting => status,
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

async fn running(name: &str) -> Result<ExitStatus> {
    let client = control::find_starting(name).await.map_err(hints::control)?;
    let job = client.wait_for_start().await;
    let job = job.with_context(|| format!("cannot wait for {name}"))?;
    match job.state {
        JobState::Succeeded | JobState::Failed | JobState::Kept => {
            Err(Error::msg(format!("the job {name} has ended")))
        }
        _ => Ok(ExitStatus::SUCCESS),
    }
}

async fn ended(name: &str, printer: Printer) -> Result<ExitStatus> {
    let job = end_of(name).await?;
    let Some(status) = job.status else {
        let why = "the job is lost: the process that ran it was killed";
        return Err(Error::msg(why).context(format!("{name} has no status")));
    };
    // The exit status is the result, even if the output cannot be written.
    if printer.is_json() {
        let _ = output::line(json_text(&json!(job).to_string()));
    } else {
        let _ = output::line(status);
    }
    Ok(ExitStatus(status))
}

/// The job when its command has ended. A job that loses its machine says so in its directory.
async fn end_of(name: &str) -> Result<Job> {
    let found = match control::lookup(name).await {
        Err(ControlError::NotFound { .. }) => {
            control::find_starting(name).await.map(Found::Running)
        }
        found => found,
    };
    match found.map_err(hints::control)? {
        Found::Running(client) => match at_end(&client).await {
            Some(job) => job.with_context(|| format!("cannot wait for {name}")),
            None => match control::lookup(name).await.map_err(hints::control)? {
                Found::Ended(past) => Ok(past.job),
                _ => Err(Error::msg(format!("{name} has ended, and another job has its name"))),
            },
        },
        Found::Ended(past) => Ok(past.job),
        _ => Err(Error::msg(format!("cannot wait for {name}"))),
    }
}

/// The job, if it has ended with a result. `None`: its process has ended without one.
async fn at_end(client: &Client) -> Option<Result<Job, ClientError>> {
    match client.wait().await {
        Err(ClientError::Unreachable(..) | ClientError::Connection(_)) => None,
        Err(error) if error.code() == Some(Code::Terminated) => None,
        job => Some(job),
    }
}
