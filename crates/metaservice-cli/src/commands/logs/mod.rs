//! `metaservice logs [-f] [-t] [--since TIME] [--tail N] JOB`: prints the log of a job, byte for
//! byte.

mod display;
mod outputs;
mod since;
mod source;
mod spool;
mod tail;

use std::pin::pin;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::Args;
use metaservice::LogFrom;
use metaservice::control::LogSegments;
use metaservice::control::log_frame::{self, FrameReader};
use metaservice_sandbox::control::{self, ControlError, Found};

use self::display::Display;
pub(super) use self::outputs::Outputs;
use self::source::Source;
use self::spool::Spool;
use self::tail::LastLines;
use super::fleet::{MaybeQueue, StoreArgs, follow};
use crate::flags::{JobName, numbers};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::jobs;
use crate::output::printer::Printer;
use crate::output::{self, AsyncOutput, AsyncStderr};
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice logs -f --since 10m build
  metaservice logs -t -n 20 build
  metaservice logs --merged build | grep -i error";

/// Show the log of a job.
///
/// What the command has written to stdout goes to stdout, and its stderr to stderr. Of a job that
/// has ended, the last 64 MiB are kept. With --queue, JOB is the id of a job of that queue.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Logs {
    /// Follow the log until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Put the time of arrival before each line, in UTC.
    ///
    /// It has a resolution of 1 ms, less in a long log. A line that came in pieces has the time of
    /// its first byte. A time that is not known is "-".
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show both outputs on stdout, in order of arrival.
    #[arg(long)]
    pub(crate) merged: bool,
    /// Show the log since a time: 10m, 2024-05-01, 2024-05-01T12:00:00Z, or a Unix time.
    #[arg(long, value_name = "DURATION|TIME")]
    pub(crate) since: Option<String>,
    /// Show the last N lines of both outputs together, or "all".
    #[arg(short = 'n', long, value_name = "N", value_parser = numbers::lines)]
    pub(crate) tail: Option<u64>,
    #[command(flatten)]
    pub(crate) name: JobName,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// How many bytes of the last lines are kept in memory.
const MAX_TAIL: usize = 64 * 1024 * 1024;

pub(crate) async fn logs(args: Logs, printer: Printer) -> Result<ExitStatus> {
    if args.queue.has(&args.name.job).await {
        let is_plain = !args.timestamps && !args.merged && args.since.is_none();
        ensure!(
            is_plain && args.tail.is_none(),
            "the log of a job of a queue is shown whole: pipe it to tail or grep"
        );
        return follow::logs(args.queue.args(), &args.store, &args.name.job, args.follow, printer)
            .await;
    }
    let since = args.since.as_deref().map(|since| since::parse(since, SystemTime::now()));
    let since = since.transpose().context("in --since")?;
    // The maximum of the control API. A larger number means all lines.
    let tail = args.tail.filter(|lines| i64::try_from(*lines).is_ok());
    let (from, tail) = match (since, tail) {
        (Some(since), tail) => (LogFrom::Since(since), tail),
        (None, Some(lines)) => (LogFrom::Tail(lines), None),
        (None, None) => (LogFrom::Start, None),
    };
    ensure!(tail.is_none() || !args.follow, "-f follows --since or --tail, not both at once");
    let found = match control::lookup(&args.name.job).await {
        // With -f, a job that starts just now is awaited.
        Err(ControlError::NotFound { .. }) if args.follow => {
            Found::Running(jobs::running(&args.name.job, printer).await?)
        }
        found => found.map_err(hints::any_job)?,
    };
    let mut interrupts = Interrupts::listen()?;
    let reading = async {
        let display = Display::new(args.merged, args.timestamps);
        let outputs = Outputs::new(AsyncOutput::new(), AsyncStderr::new(), display);
        let source = match found {
            Found::Running(client) => {
                let log = client.log_segments(from, args.follow).await?;
                if log.missed > 0 {
                    source::note_missed(log.missed, printer);
                }
                if tail.is_none() {
                    return show(log, outputs).await.map(drop);
                }
                Source::Running(log)
            }
            Found::Ended(past) => {
                let log = tokio::task::block_in_place(|| past.log());
                let log = log.context("no log of it is kept")?;
                Source::Ended(log.reader(from).await?, printer)
            }
            _ => return Ok(()),
        };
        match tail {
            None => copy(source, outputs).await,
            Some(lines) => show_tail(source, lines, outputs).await,
        }
    };
    tokio::select! {
        shown = reading => match shown {
            // The reader has closed standard output. This is not an error.
            Err(error) if output::is_closed(&error) => Ok(ExitStatus::SUCCESS),
            shown => {
                shown.with_context(|| format!("cannot show the log of {}", args.name.job))?;
                Ok(ExitStatus::SUCCESS)
            }
        },
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// What was shown of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Whole,
    /// The reader has closed standard output.
    Unread,
}

/// Prints a log to its end. Slow readers of the outputs delay neither the job nor its end.
pub(super) async fn show(mut log: LogSegments, mut outputs: Outputs) -> Result<Shown> {
    let spool = Spool::new();
    let filling = async {
        let filled = async {
            while let Some(segment) = log.next().await.context("the log is cut")? {
                spool.push(log_frame::encode(&segment).into()).await;
            }
            Ok(())
        };
        let filled = filled.await;
        spool.end();
        filled
    };
    let writing = async {
        let mut frames = FrameReader::default();
        while let Some(bytes) = spool.pop().await.context("the temporary file cannot be read")? {
            frames.push(bytes);
            while let Some(segment) = frames.next()? {
                outputs.write(&segment).await?;
            }
            // A reader that follows the log needs each line at once.
            outputs.flush().await?;
        }
        Ok(())
    };
    let (mut filling, mut writing) = (pin!(filling), pin!(writing));
    let mut filled = None;
    loop {
        tokio::select! {
            biased;
            written = &mut writing => {
                return written.and(filled.unwrap_or(Ok(()))).map(|()| Shown::Whole);
            }
            done = &mut filling, if filled.is_none() => filled = Some(done),
            // With `logs -f JOB | grep -q READY`, do not wait for the next byte.
            () = output::reader_gone() => return Ok(Shown::Unread),
        }
    }
}

/// Prints a log that is complete.
async fn copy(mut log: Source, mut outputs: Outputs) -> Result<()> {
    while let Some(segment) = log.next().await? {
        outputs.write(&segment).await?;
    }
    outputs.flush().await
}

async fn show_tail(mut log: Source, lines: u64, mut outputs: Outputs) -> Result<()> {
    let mut last = LastLines::new(lines, MAX_TAIL);
    while let Some(segment) = log.next().await? {
        last.add(segment);
    }
    for segment in last.into_segments() {
        outputs.write(&segment).await?;
    }
    outputs.flush().await
}
