//! `metaservice stats [--follow] JOB`: shows the use of resources of a guest.
//!
//! A rate needs two observations. Without `--follow`, they are half a second apart. On a terminal,
//! each line replaces the previous one. Otherwise each observation has its own line.

mod gauges;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures_util::TryStreamExt;
use metaservice::Stats;
use metaservice::control::{Client, ClientError};
use metaservice_sandbox::spec::Period;
use serde_json::Value;

use self::gauges::Gauges;
use crate::flags::JobName;
use crate::interrupts::Interrupts;
use crate::jobs;
use crate::output::Output;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Example:
  metaservice stats --follow --json build | jq .memoryUsed";

/// Show the processor, memory, disk and network use of a guest.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct StatsVerb {
    /// Repeat until the job ends.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The interval of --follow: 100ms to 10s.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: String,
    #[command(flatten)]
    pub(crate) name: JobName,
}

/// The time between the two observations without `--follow`.
const MOMENT: Duration = Duration::from_millis(500);

pub(crate) async fn stats(args: StatsVerb, printer: Printer) -> Result<ExitStatus> {
    let interval = args.interval.parse::<Period>().context("in --interval")?.get();
    let range = Duration::from_millis(100)..=Duration::from_secs(10);
    ensure!(range.contains(&interval), "--interval is 100ms to 10s");
    let client = jobs::running(&args.name.job, printer).await?;
    let mut interrupts = Interrupts::listen()?;
    let watching = async {
        let interval = if args.follow { interval } else { MOMENT };
        let mut lines = client.stats(Some(interval)).await?;
        let mut table = Table::new(printer.is_json());
        let mut last: Option<Stats> = None;
        while let Some(stats) = lines.try_next().await? {
            if let Some(last) = last {
                table.show(&Gauges::between(&last, &stats), card(&client).await)?;
                if !args.follow {
                    break;
                }
            }
            last = Some(stats);
        }
        anyhow::Ok(())
    };
    tokio::select! {
        watched = watching => match watched {
            // The machine ends with the job, which cuts off the reply.
            Err(_) if args.follow && has_ended(&client).await => Ok(ExitStatus::SUCCESS),
            watched => {
                watched.with_context(|| format!("cannot watch {}", args.name.job))?;
                Ok(ExitStatus::SUCCESS)
            }
        },
        interrupt = interrupts.next() => Ok(ExitStatus::signal(interrupt.number)),
    }
}

/// Returns whether the job has ended: it has a status, or its process has ended.
async fn has_ended(client: &Client) -> bool {
    match client.job().await {
        Ok(job) => job.status.is_some(),
        Err(error) => matches!(error, ClientError::Unreachable(..) | ClientError::Connection(_)),
    }
}

/// Returns the statistics of the machine's network card. `null` if the host does not know the card.
async fn card(client: &Client) -> Value {
    let job = client.job().await;
    job.map_or(Value::Null, |job| job.machine.get("card").cloned().unwrap_or_default())
}

/// Prints observations as a table or as JSON.
struct Table {
    json: bool,
    terminal: bool,
    lines: u64,
}

impl Table {
    fn new(json: bool) -> Self {
        Self { json, terminal: std::io::stdout().is_terminal(), lines: 0 }
    }

    fn show(&mut self, gauges: &Gauges, card: Value) -> Result<()> {
        let mut stdout = Output::lock();
        if self.json {
            let mut line = serde_json::to_value(gauges)?;
            line["card"] = card;
            writeln!(stdout, "{line}")?;
        } else {
            if self.lines == 0 {
                writeln!(stdout, "{}", Gauges::HEADINGS)?;
            } else if self.terminal {
                // Move up a line and clear it.
                write!(stdout, "\x1b[1A\x1b[2K")?;
            }
            writeln!(stdout, "{gauges}")?;
        }
        self.lines += 1;
        stdout.flush()?;
        Ok(())
    }
}
