//! `metaservice wait JOB...`: waits until jobs end, prints their statuses, and exits with one of
//! them.

use anyhow::{Context, Error, Result};
use clap::{Args, ValueEnum};
use metaservice::control::{Client, ClientError, Code, Job, JobState};
use metaservice_sandbox::control::{self, ControlError, Found};
use serde_json::json;

use super::each::each;
use super::fleet::{MaybeQueue, follow};
use crate::flags::AnyJobNames;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice wait build && echo it succeeded
  metaservice wait --for running db
  metaservice wait --queue local --for running 1f2e3d4c5b6a

With several jobs, each status is a line, in the order of the names.

Exit status: that of the job; of several, that of the first one that is not 0. 125 if a job cannot
be waited for. With --for running: 0, or 125 if the job has ended.";

/// Wait until jobs end, print their statuses, and exit with the first that is not 0.
///
/// The status of a job that has ended is printed at once, as long as the job is kept. With --queue,
/// JOB is the id of a job of that queue.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Wait {
    /// What to wait for.
    #[arg(long = "for", value_name = "EVENT", value_enum, default_value_t = Event::Ended)]
    pub(crate) event: Event,
    #[command(flatten)]
    pub(crate) names: AnyJobNames,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

/// An event in the life of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Event {
    /// The guest has fetched the command. A job of a queue: a worker has it.
    Running,
    /// The job has ended, with its artifacts, or its machine is kept.
    Ended,
}

/// Waits for jobs of a queue.
async fn wait_on_queue(
    args: Wait,
    interrupts: &mut Interrupts,
    printer: Printer,
) -> Result<ExitStatus> {
    let mut first = ExitStatus::SUCCESS;
    for id in &args.names.jobs {
        let status = tokio::select! {
            status = wait_for_one(&args, id, printer) => status?,
            interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
        };
        if first == ExitStatus::SUCCESS {
            first = status;
        }
    }
    Ok(first)
}

async fn wait_for_one(args: &Wait, id: &str, printer: Printer) -> Result<ExitStatus> {
    match args.event {
        Event::Running => follow::wait_for_start(args.queue.args(), id, printer).await,
        Event::Ended => follow::wait(args.queue.args(), id, printer).await,
    }
}

pub(crate) async fn wait(args: Wait, printer: Printer) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let event = args.event;
    let first = args.names.jobs.first();
    if let Some(first) = first
        && args.queue.has(first).await
    {
        return wait_on_queue(args, &mut interrupts, printer).await;
    }
    let wait_for = async |name: String| match event {
        Event::Running => running(&name).await.map(|()| None),
        Event::Ended => ended(&name).await.map(Some),
    };
    let mut first = ExitStatus::SUCCESS;
    let waiting = each(args.names.jobs, printer, wait_for, |ended| {
        let Some((status, job)) = ended else { return Ok(()) };
        if first == ExitStatus::SUCCESS {
            first = ExitStatus(status);
        }
        // The exit status is the result, even if the output cannot be written.
        let _ = match printer.is_json() {
            true => output::line(json_text(&json!(job).to_string())),
            false => output::line(status),
        };
        Ok(())
    });
    tokio::select! {
        waited = waiting => match waited? {
            ExitStatus::SUCCESS => Ok(first),
            failed => Ok(failed),
        },
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

async fn running(name: &str) -> Result<()> {
    let client = control::find_starting(name).await.map_err(hints::control)?;
    let job = client.wait_for_start().await;
    let job = job.with_context(|| format!("cannot wait for {name}"))?;
    match job.state {
        JobState::Succeeded | JobState::Failed | JobState::Kept => {
            Err(Error::msg(format!("the job {name} has ended")))
        }
        _ => Ok(()),
    }
}

/// The job when it has ended, and its status.
async fn ended(name: &str) -> Result<(u8, Job)> {
    let job = end_of(name).await?;
    let Some(status) = job.status else {
        let why = "the job is lost: the process that ran it was killed";
        return Err(Error::msg(why).context(format!("{name} has no status")));
    };
    Ok((status, job))
}

/// The job when it has ended, or when its machine is kept. A job that loses its machine says so in
/// its directory.
async fn end_of(name: &str) -> Result<Job> {
    let found = match control::lookup(name).await {
        Err(ControlError::NotFound { .. }) => {
            control::find_starting(name).await.map(Found::Running)
        }
        found => found,
    };
    match found.map_err(hints::any_job)? {
        Found::Running(client) => match at_end(&client).await {
            Some(Ok(job)) if job.state != JobState::Kept => final_state(name, job).await,
            Some(job) => job.with_context(|| format!("cannot wait for {name}")),
            None => match control::lookup(name).await.map_err(hints::any_job)? {
                Found::Ended(past) => Ok(past.job),
                _ => Err(Error::msg(format!("{name} has ended, and another job has its name"))),
            },
        },
        Found::Ended(past) => Ok(past.job),
        _ => Err(Error::msg(format!("cannot wait for {name}"))),
    }
}

/// The job after its process has ended: its artifacts are there, or its status says that they are
/// not. Without a history, it is the job at the end of its command.
async fn final_state(name: &str, job: Job) -> Result<Job> {
    control::wait_for_process(&job.name.parse()?).await.map_err(hints::control)?;
    match control::lookup(name).await {
        Ok(Found::Ended(past)) if past.job.pid == job.pid => Ok(past.job),
        _ => Ok(job),
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
