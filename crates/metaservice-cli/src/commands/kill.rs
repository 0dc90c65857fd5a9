//! `metaservice kill [--force] [-s SIGNAL] JOB...`: kills the command of each job and all its
//! processes, or sends its main process a signal.

use anyhow::{Context, Error, Result};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice::control::{ClientError, JobState, KILL_ORDER_TIMEOUT, Killed};

use super::each::each;
use crate::completions;
use crate::flags::JobNames;
use crate::hints;
use crate::output::printer::Printer;
use crate::signals;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice kill build db
  metaservice kill --force build
  metaservice kill -s HUP build

Exit status: 0, or 125 if one of the jobs was not killed.";

/// Kill the commands of jobs, or send them a signal.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Kill {
    /// Send this signal to the main process of the command: TERM, SIGTERM or 15.
    ///
    /// Without this option, the command and all of its processes are killed. If the guest does not
    /// take the order within 10 seconds, its machine is ended.
    #[arg(short, long, value_name = "SIGNAL", conflicts_with = "force")]
    #[arg(add = ArgValueCompleter::new(completions::signals))]
    pub(crate) signal: Option<String>,
    /// End the machine at once, without its guest.
    ///
    /// This works while the kernel of the guest or QEMU is stopped. What the guest has not sent is
    /// lost. With "serve", only the service ends: another program has started the machine.
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) names: JobNames,
}

pub(crate) async fn kill(args: Kill, printer: Printer) -> Result<ExitStatus> {
    let signal = args.signal.as_deref().map(signals::parse).transpose().context("in --signal")?;
    let force = args.force;
    let kill_one = async |job: String| match signal {
        None => end(&job, force, printer).await,
        Some(signal) => send(&job, signal).await,
    };
    each(args.names.jobs, printer, kill_one, Ok).await
}

async fn end(job: &str, force: bool, printer: Printer) -> Result<()> {
    let client = metaservice_sandbox::control::find(job).await.map_err(hints::control)?;
    let cannot = || format!("cannot kill {job}");
    if force {
        return match client.kill_machine().await {
            Err(error @ ClientError::Silent(_)) => {
                let what = format!("{:#}", Error::new(error).context(cannot()));
                Err(hints::hinted(
                    format!("`metaservice rm --force {job}` kills its process"),
                    what,
                ))
            }
            killed => killed.map(drop).with_context(cannot),
        };
    }
    // A kept machine has no command, so its guest gets no order.
    let is_kept = client.job().await.with_context(cannot)?.state == JobState::Kept;
    let killed = client.kill().await.with_context(cannot)?;
    if killed == Killed::Machine && !is_kept {
        let seconds = KILL_ORDER_TIMEOUT.as_secs();
        let what = format!("the guest of {job} did not take the order within {seconds} s");
        printer.note(&format!("{what}; its machine was ended"));
    }
    Ok(())
}

async fn send(job: &str, signal: u8) -> Result<()> {
    let client = metaservice_sandbox::control::find(job).await.map_err(hints::control)?;
    let sent = client.signal(signal).await;
    sent.with_context(|| format!("cannot send signal {signal} to {job}"))
}
