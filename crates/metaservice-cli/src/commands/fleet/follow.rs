//! The log and the result of a job of a queue.

use std::time::Duration;

use anyhow::{Context, Result};
use metaservice_fleet::log::Stream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Follow, Queue, ReadError};
use metaservice_fleet::state::{JobState, Phase};
use metaservice_fleet::step::Outcome;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::causes::exception;
use super::store::Stores;
use super::waiting::Told;
use super::{QueueArgs, StoreArgs};
use crate::interrupts::Interrupts;
use crate::output::printer::{Printer, json_text};
use crate::output::{self, AsyncOutput, AsyncStderr};
use crate::status::ExitStatus;

/// The exit status of a job that was cancelled: that of a process that SIGINT ends.
const CANCELLED: ExitStatus = ExitStatus::signal(2);

/// Writes the log of a job: of its last attempt, and with `follow` also what comes.
pub(crate) async fn logs(
    args: &QueueArgs,
    store: &StoreArgs,
    id: &str,
    follow: bool,
    printer: Printer,
) -> Result<ExitStatus> {
    let id: JobId = id.parse()?;
    let mut interrupts = Interrupts::listen()?;
    let queue = args.connect().await?;
    let stores = Stores::open(&queue, store)?;
    let printed = async {
        let job = queue.job(&id).await?.ok_or_else(|| ReadError::NoJob(id.clone()))?;
        if let Some(Outcome::Finished { log, log_object: Some(object), .. }) = job.outcome()
            && *log > 0
            && queue.log(&id, job.attempt).await?.try_next().await?.is_none()
        {
            let mut stdout = AsyncOutput::of_command(false);
            stores.get(object, &mut stdout).await?;
            return stdout.flush().await.context("cannot write the log");
        }
        if follow {
            return print_all(&queue, &id, printer).await.map(drop);
        }
        print(&queue, &id, job.attempt, false, printer).await
    };
    tokio::select! {
        printed = printed => printed.map(|()| ExitStatus::SUCCESS),
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// Waits until a job has ended, and returns its exit status.
pub(crate) async fn wait(args: &QueueArgs, id: &str, printer: Printer) -> Result<ExitStatus> {
    let id: JobId = id.parse()?;
    let queue = args.connect().await?;
    let mut follow = queue.follow(&id).await?;
    let mut later = Later::default();
    let (mut told, mut before) = (Told::new(&queue, &id, printer), None);
    let job = loop {
        let job = next(&mut follow, &mut told, before.as_ref()).await?;
        later.note(&id, &job, printer);
        if job.outcome().is_some() {
            break job;
        }
        before = Some(job);
    };
    let Some(outcome) = job.outcome() else { return Ok(ExitStatus::FAILED) };
    match printer.is_json() {
        true => output::line(json_text(&json!({ "id": id, "outcome": outcome }).to_string()))?,
        false => output::line(status_of(outcome).0)?,
    }
    Ok(conclude(&id, &job, outcome, printer))
}

/// Waits until a worker has claimed a job.
pub(crate) async fn wait_for_start(
    args: &QueueArgs,
    id: &str,
    printer: Printer,
) -> Result<ExitStatus> {
    let id: JobId = id.parse()?;
    let queue = args.connect().await?;
    let mut follow = queue.follow(&id).await?;
    let (mut told, mut before) = (Told::new(&queue, &id, printer), None);
    loop {
        let job = next(&mut follow, &mut told, before.as_ref()).await?;
        match job.phase {
            Phase::Running { .. } => return Ok(ExitStatus::SUCCESS),
            Phase::Ended { .. } => anyhow::bail!("the job {id} has ended"),
            _ => before = Some(job),
        }
    }
}

/// The next state of a job. Until it comes, says why the job waits.
async fn next(
    follow: &mut Follow,
    told: &mut Told<'_>,
    before: Option<&JobState>,
) -> Result<JobState, ReadError> {
    tokio::select! {
        biased;
        job = follow.next() => job,
        never = told.tell(before) => match never {},
    }
}

/// Says once that a job is one of a later version.
#[derive(Debug, Default)]
struct Later(bool);

impl Later {
    fn note(&mut self, id: &JobId, job: &JobState, printer: Printer) {
        if job.is_of_later_version() && !std::mem::replace(&mut self.0, true) {
            let text = "a later version of metaservice changed it; waiting for its result";
            printer.note(&format!("{id}: {text}"));
        }
    }
}

/// Writes the log of each attempt while it grows, and returns the job once it has ended.
pub(super) async fn print_all(queue: &Queue, id: &JobId, printer: Printer) -> Result<JobState> {
    let mut follow = queue.follow(id).await?;
    let mut printed = 0;
    let mut later = Later::default();
    let (mut told, mut before) = (Told::new(queue, id, printer), None);
    loop {
        let job = next(&mut follow, &mut told, before.as_ref()).await?;
        later.note(id, &job, printer);
        // The log of an attempt that is over was removed by no one.
        while printed < job.attempt {
            printed += 1;
            if printed > 1 {
                let text = "the attempt before has no result; this is the log of attempt";
                printer.note(&format!("{id}: {text} {printed}"));
            }
            print(queue, id, printed, true, printer).await?;
        }
        if let Phase::Ended { .. } = job.phase {
            return Ok(job);
        }
        before = Some(job);
    }
}

/// Writes the log of one attempt: as it is, or also what comes until it is over.
async fn print(
    queue: &Queue,
    id: &JobId,
    attempt: u32,
    follow: bool,
    printer: Printer,
) -> Result<()> {
    if attempt == 0 {
        return Ok(());
    }
    let mut reader = queue.log(id, attempt).await?;
    let mut stdout = AsyncOutput::of_command(false);
    let mut stderr = AsyncStderr::of_command();
    loop {
        let chunk = if follow { reader.next().await } else { reader.try_next().await };
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error @ ReadError::Gap { .. }) => {
                printer.note(&error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match chunk.stream {
            Stream::Stderr if !printer.is_json() => {
                stderr.write_all(&chunk.bytes).await?;
                stderr.flush().await?;
            }
            // A terminal shows it at once, also without the end of the line.
            _ => {
                stdout.write_all(&chunk.bytes).await?;
                stdout.flush().await.context("cannot write the log")?;
            }
        }
    }
    Ok(())
}

/// Says what became of a job, and returns the exit status.
pub(super) fn conclude(
    id: &JobId,
    job: &JobState,
    outcome: &Outcome,
    printer: Printer,
) -> ExitStatus {
    if let Some(timeout) = timed_out(job) {
        let timeout = humantime::format_duration(timeout);
        printer.note(&format!("{id}: the command was killed: --timeout of {timeout} has passed"));
        printer.event("timeout", json!({ "id": id }));
    }
    printer.event("ended", json!({ "id": id, "outcome": outcome }));
    match outcome {
        Outcome::Cancelled => printer.note(&format!("{id} was cancelled")),
        Outcome::Exception { cause, message } => {
            let text = exception(*cause);
            let more = if message.is_empty() { String::new() } else { format!(": {message}") };
            printer.note(&format!("{id} has no result: {text}{more}"));
        }
        Outcome::Unknown => {
            let text = "has ended, and only a later version of metaservice can say how";
            printer.note(&format!("{id} {text}"));
        }
        _ => {}
    }
    status_of(outcome)
}

/// The timeout of a job, if its command was killed by it. A command can have the same status.
fn timed_out(job: &JobState) -> Option<Duration> {
    let timeout = job.request.spec.timeout?.get();
    let Phase::Ended { outcome: Outcome::Finished { status, .. }, at, .. } = &job.phase else {
        return None;
    };
    let ran = Duration::from_millis(at.saturating_sub(job.claimed?));
    (ExitStatus(*status) == ExitStatus::TIMED_OUT && ran >= timeout).then_some(timeout)
}

fn status_of(outcome: &Outcome) -> ExitStatus {
    match outcome {
        Outcome::Finished { status, .. } => ExitStatus(*status),
        Outcome::Cancelled => CANCELLED,
        _ => ExitStatus::FAILED,
    }
}
