//! `metaservice net log [-f] JOB`: prints what a guest has tried.

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::job::{answer, client};
use crate::flags::JobName;
use crate::output::printer::json_text;
use crate::output::{self, reader_gone};
use crate::status::ExitStatus;

const HELP: &str = "\
Each attempt that has ended is a line of JSON: timeMs, verdict, rule, name, address, port, protocol,
sent, received, durationMs, reason.

Examples:
  metaservice net log -f build
  metaservice net log build | jq -r 'select(.verdict == \"denied\") | .name' | sort | uniq -c";

/// Show what the guest of a job has tried to connect to, as lines of JSON.
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
    let body = client(&job).await?.network_log(args.follow).await;
    let mut lines = BufReader::new(answer(body, cannot)?).lines();
    let gone = reader_gone();
    tokio::pin!(gone);
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.with_context(cannot)?,
            () = &mut gone => return Ok(ExitStatus::SUCCESS),
        };
        match line {
            Some(line) => output::line(json_text(&line))?,
            None => return Ok(ExitStatus::SUCCESS),
        }
    }
}
