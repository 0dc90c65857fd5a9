//! `metaservice net log [-f] JOB`: prints what a guest has tried.

use std::io;

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice_sandbox::control::{self, Found};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::job::answer;
use crate::flags::JobName;
use crate::hints;
use crate::output::printer::json_text;
use crate::output::{self, reader_gone};
use crate::status::ExitStatus;

const HELP: &str = "\
Each attempt that has ended is a line of JSON: timeMs, verdict, rule, name, address, port, protocol,
sent, received, durationMs, reason, suggestion (the rule that would allow a denied one).

Examples:
  metaservice net log -f build
  metaservice net log build | jq -r 'select(.verdict == \"denied\") | .name' | sort | uniq -c";

/// Show what the guest of a job has tried to connect to, as lines of JSON.
///
/// Of a job that has ended, the file of --net-log is read.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Log {
    /// Continue to the end of the job.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    name: JobName,
}

pub(super) async fn log(args: Log) -> Result<ExitStatus> {
    let job = args.name.job;
    let cannot = || format!("cannot read the network log of {job}");
    match control::lookup(&job).await.map_err(hints::any_job)? {
        Found::Running(client) => {
            let body = client.network_log(args.follow).await;
            print(answer(body, cannot)?).await.with_context(cannot)
        }
        Found::Ended(past) => {
            let file = tokio::task::block_in_place(|| past.network_log());
            let file = file.map_err(unread).with_context(cannot)?;
            print(tokio::fs::File::from_std(file)).await.with_context(cannot)
        }
        _ => Ok(ExitStatus::SUCCESS),
    }
}

/// Why there is no log of a job that has ended.
fn unread(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            hints::hinted("start the job with --net-log FILE", "no log is kept")
        }
        _ => error.into(),
    }
}

/// Prints lines until they end, or until the reader has gone.
async fn print(lines: impl AsyncRead + Unpin) -> Result<ExitStatus> {
    let mut lines = BufReader::new(lines).lines();
    let gone = reader_gone();
    tokio::pin!(gone);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = &mut gone => return Ok(ExitStatus::SUCCESS),
        };
        match line {
            Some(line) => output::line(json_text(&line))?,
            None => return Ok(ExitStatus::SUCCESS),
        }
    }
}
