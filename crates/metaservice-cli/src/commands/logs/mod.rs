//! `metaservice logs [-f] [--since TIME] [--tail N] JOB`: prints the log of a job, byte for byte.

mod ended;
mod since;
mod spool;
mod tail;

use std::pin::pin;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures_util::TryStreamExt;
use metaservice::LogFrom;
use metaservice::control::BodyReader;
use metaservice_sandbox::control::{self, ControlError, Found};
use tokio::io::{AsyncWriteExt, BufReader};

use self::spool::Spool;
use self::tail::show_tail;
use crate::flags::{JobName, numbers};
use crate::hints;
use crate::interrupts::Interrupts;
use crate::jobs;
use crate::output::printer::Printer;
use crate::output::{self, AsyncOutput};
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice logs -f --since 10m --tail 100 build";

/// Show the log of a job.
///
/// Of a job that has ended, the last 64 MiB are kept.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Logs {
    /// Follow the log until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show the log since a time: 10m, 2024-05-01, 2024-05-01T12:00:00Z, or a Unix time.
    #[arg(long, value_name = "DURATION|TIME")]
    pub(crate) since: Option<String>,
    /// Show the last N lines, or "all".
    #[arg(short = 'n', long, value_name = "N", value_parser = numbers::lines)]
    pub(crate) tail: Option<u64>,
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn logs(args: Logs, printer: Printer) -> Result<ExitStatus> {
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
        found => found.map_err(hints::control)?,
    };
    let mut interrupts = Interrupts::listen()?;
    let reading = async {
        let client = match found {
            Found::Running(client) => client,
            Found::Ended(past) => return ended::show(&past, from, tail, printer).await,
            _ => return Ok(()),
        };
        let log = client.log(from, args.follow).await?;
        if log.missed > 0 {
            printer.note(&format!("the first {} bytes are no longer kept", log.missed));
        }
        match tail {
            None => show(log.body, AsyncOutput::new()).await,
            Some(lines) => show_tail(BufReader::new(log.body), lines).await,
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

/// Prints a log to its end. A slow reader of standard output delays neither the job nor its end.
pub(super) async fn show(mut log: BodyReader, mut stdout: AsyncOutput) -> Result<()> {
    let spool = Spool::new();
    let filling = async {
        let filled = async {
            while let Some(bytes) = log.try_next().await.context("the log is cut")? {
                spool.push(bytes).await;
            }
            Ok(())
        };
        let filled = filled.await;
        spool.end();
        filled
    };
    let writing = async {
        while let Some(bytes) = spool.pop().await.context("the temporary file cannot be read")? {
            stdout.write_all(&bytes).await?;
            // A reader that follows the log needs each line at once.
            stdout.flush().await?;
        }
        Ok(())
    };
    let (mut filling, mut writing) = (pin!(filling), pin!(writing));
    let mut filled = None;
    loop {
        tokio::select! {
            biased;
            written = &mut writing => return written.and(filled.unwrap_or(Ok(()))),
            done = &mut filling, if filled.is_none() => filled = Some(done),
            // With `logs -f JOB | grep -q READY`, do not wait for the next byte.
            () = output::reader_gone() => return Ok(()),
        }
    }
}
