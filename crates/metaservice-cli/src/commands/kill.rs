//! `metaservice kill [--force] [-s SIGNAL] JOB...`: kills the command of each job and all its
//! processes, or sends its main process a signal.

use anyhow::{Context, Error, Result};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice::control::{Client, ClientError, JobState, KILL_ORDER_TIMEOUT, Killed};

use super::each::each;
use super::fleet::{MaybeQueue, Reached};
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
  metaservice kill -s HUP --queue local 1f2e3d4c5b6a

Exit status: 0, or 125 if one of the jobs was not killed.";

/// Kill the commands of jobs, or send them a signal.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs. Its result is that
/// of a command that was killed; "cancel" also ends a job that waits.
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
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

pub(crate) async fn kill(args: Kill, printer: Printer) -> Result<ExitStatus> {
    let signal = args.signal.as_deref().map(signals::parse).transpose().context("in --signal")?;
    let (force, queue) = (args.force, args.queue);
    if force && queue.is_named() {
        let hint = "`metaservice cancel ID` ends a job of a queue";
        return Err(hints::hinted(hint, "--force is for jobs of this host"));
    }
    let kill_one = async |job: String| {
        let client = find(&queue, &job, printer).await?;
        match signal {
            None => end(&job, &client, force, printer).await,
            Some(signal) => send(&job, &client, signal).await,
        }
    };
    each(args.names.jobs, printer, kill_one, Ok).await
}

/// The job, which must run: one that starts is not awaited.
async fn find(queue: &MaybeQueue, job: &str, printer: Printer) -> Result<Reached> {
    if queue.is_given() {
        return queue.reach_briefly(job, printer).await;
    }
    let found = metaservice_sandbox::control::find(job).await;
    found.map(Reached::here).map_err(hints::control)
}

async fn end(job: &str, client: &Client, force: bool, printer: Printer) -> Result<()> {
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

async fn send(job: &str, client: &Client, signal: u8) -> Result<()> {
    let sent = client.signal(signal).await;
    sent.with_context(|| format!("cannot send signal {signal} to {job}"))
}
