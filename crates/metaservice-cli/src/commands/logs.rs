//! `metaservice logs [-f] [--since TIME] [--tail N] JOB`: what a job has logged, byte for byte.

use std::collections::VecDeque;
use std::io;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use metaservice::LogFrom;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::args::LogsArgs;
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::settings::parse_since;
use crate::sockets;
use crate::status::ExitStatus;

/// How much is read at once.
const BLOCK: usize = 64 * 1024;

/// The longest last lines that are kept in memory.
const MAX_TAIL: usize = 64 * 1024 * 1024;

pub(crate) async fn logs(args: LogsArgs, printer: Printer) -> Result<ExitStatus> {
    let since = args.since.as_deref().map(|since| parse_since(since, SystemTime::now()));
    let since = since.transpose().context("in --since")?;
    let (from, tail) = match (since, args.tail) {
        (Some(since), tail) => (LogFrom::Since(since), tail),
        (None, Some(lines)) => (LogFrom::Tail(lines), None),
        (None, None) => (LogFrom::Start, None),
    };
    ensure!(tail.is_none() || !args.follow, "-f follows --since or --tail, not both at once");
    let client = sockets::find(&args.name.job).await?;
    let mut interrupts = Interrupts::listen()?;
    let reading = async {
        let log = client.log(from, args.follow).await?;
        if log.missed > 0 {
            printer.note(&format!("the first {} bytes are no longer kept", log.missed));
        }
        match tail {
            None => show(log.body).await,
            Some(lines) => show_tail(BufReader::new(log.body), lines).await,
        }
    };
    tokio::select! {
        shown = reading => match shown {
            // Whoever reads us has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitStatus::SUCCESS),
            shown => {
                shown.with_context(|| format!("cannot show the log of {}", args.name.job))?;
                Ok(ExitStatus::SUCCESS)
            }
        },
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn show(mut log: impl AsyncRead + Unpin) -> Result<()> {
    let mut stdout = tokio::io::stdout();
    let mut block = vec![0; BLOCK];
    loop {
        match log.read(&mut block).await.context("the log is cut")? {
            0 => return Ok(()),
            count => stdout.write_all(&block[..count]).await?,
        }
        // Whoever follows waits for each line.
        stdout.flush().await?;
    }
}

async fn show_tail(mut log: impl AsyncBufReadExt + Unpin, lines: u64) -> Result<()> {
    let (mut last, mut held) = (VecDeque::new(), 0);
    loop {
        let mut line = Vec::new();
        // A line without an end is bounded by what is kept of a log.
        if log.read_until(b'\n', &mut line).await.context("the log is cut")? == 0 {
            break;
        }
        held += line.len();
        last.push_back(line);
        while last.len() as u64 > lines || held > MAX_TAIL {
            held -= last.pop_front().map_or(0, |line| line.len());
        }
    }
    let mut stdout = tokio::io::stdout();
    for line in last {
        stdout.write_all(&line).await?;
    }
    Ok(stdout.flush().await?)
}
