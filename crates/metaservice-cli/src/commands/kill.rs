//! `metaservice kill [-s SIGNAL] JOB`: kills the job's command and all its processes, or sends its
//! main process a signal.

use anyhow::{Context, Result};
use clap::Args;
use metaservice::control::{KILL_ORDER_TIMEOUT, Killed};

use crate::flags::JobName;
use crate::hints;
use crate::output::printer::Printer;
use crate::signals;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice kill build
  metaservice kill --force build
  metaservice kill -s HUP build";

/// Kill the command of a job, or send it a signal.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Kill {
    /// Send this signal to the main process of the command: TERM, SIGTERM or 15.
    ///
    /// Without this option, the command and all of its processes are killed. If the guest does not
    /// take the order within 10 seconds, its machine is ended.
    #[arg(short, long, value_name = "SIGNAL", conflicts_with = "force")]
    pub(crate) signal: Option<String>,
    /// End the machine at once, without its guest.
    ///
    /// This works while the kernel of the guest or QEMU is stopped. What the guest has not sent is
    /// lost. A machine that another program has started for "serve" runs on.
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) name: JobName,
}

pub(crate) async fn kill(args: Kill, printer: Printer) -> Result<ExitStatus> {
    let signal = args.signal.as_deref().map(signals::parse).transpose().context("in --signal")?;
    let job = args.name.job;
    let client = metaservice_sandbox::control::find(&job).await.map_err(hints::control)?;
    match signal {
        None => {
            let killed = match args.force {
                true => client.kill_machine().await,
                false => client.kill().await,
            };
            let killed = killed.with_context(|| format!("cannot kill {job}"))?;
            if killed == Killed::Machine && !args.force {
                let seconds = KILL_ORDER_TIMEOUT.as_secs();
                let what = format!("the guest of {job} did not take the order within {seconds} s");
                printer.note(&format!("{what}; its machine was ended"));
            }
        }
        Some(signal) => client
            .signal(signal)
            .await
            .with_context(|| format!("cannot send signal {signal} to {job}"))?,
    }
    Ok(ExitStatus::SUCCESS)
}
