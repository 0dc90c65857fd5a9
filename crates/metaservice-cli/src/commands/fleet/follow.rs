//! The log and the result of a job of a queue.

use anyhow::{Context, Result};
use metaservice_fleet::log::Stream;
use metaservice_fleet::name::JobId;
use metaservice_fleet::queue::{Queue, ReadError};
use metaservice_fleet::state::{JobState, Phase};
use metaservice_fleet::step::{ExceptionCause, LostCause, Outcome};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::store::Stores;
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
    let outcome = loop {
        let job = follow.next().await?;
        later.note(&id, &job, printer);
        if let Some(outcome) = job.outcome() {
            break outcome.clone();
        }
    };
    match printer.is_json() {
        true => output::line(json_text(&json!({ "id": id, "outcome": outcome }).to_string()))?,
        false => output::line(status_of(&outcome).0)?,
    }
    Ok(conclude(&id, &outcome, printer))
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
    loop {
        let job = follow.next().await?;
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
pub(super) fn conclude(id: &JobId, outcome: &Outcome, printer: Printer) -> ExitStatus {
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

fn status_of(outcome: &Outcome) -> ExitStatus {
    match outcome {
        Outcome::Finished { status, .. } => ExitStatus(*status),
        Outcome::Cancelled => CANCELLED,
        _ => ExitStatus::FAILED,
    }
}

/// Why a job has no result, in words.
pub(crate) fn exception(cause: ExceptionCause) -> &'static str {
    match cause {
        ExceptionCause::Deadline => "it did not start before its deadline",
        ExceptionCause::Artifacts => "its worker does not allow such artifacts",
        ExceptionCause::Lost(LostCause::Lease) => "its worker was lost",
        ExceptionCause::Lost(LostCause::Machine) => "its machine failed",
        ExceptionCause::Lost(LostCause::Output) => "its outputs could not be kept",
        ExceptionCause::Lost(LostCause::Refused) => "the worker cannot run it",
        ExceptionCause::Lost(LostCause::Released) => "its worker gave it back",
    }
}
