//! `metaservice shell JOB`: a shell in the guest of a job, in this terminal.

use anyhow::{Error, Result};
use clap::Args;

use super::exec::{AroundArgs, attend, describe};
use super::fleet::MaybeQueue;
use crate::flags::JobName;
use crate::output::printer::{Hint, Printer};
use crate::status::ExitStatus;
use crate::terminal::Escape;

const HELP: &str = "\
Examples:
  metaservice shell --detach-keys '~,.' build
  metaservice shell --queue local 1f2e3d4c5b6a

Exit status: that of the shell; 128+N after signal N, 0 after the detach keys.";

/// Open a shell in the guest of a job.
///
/// With --queue, JOB is the id of a job of that queue, on whatever host it runs.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) around: AroundArgs,
    #[command(flatten)]
    pub(crate) name: JobName,
    /// A command and its arguments [default: the default shell of the guest].
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) queue: MaybeQueue,
}

pub(crate) async fn shell(args: Shell, printer: Printer) -> Result<ExitStatus> {
    let escape = Escape::parse(&args.around.detach_keys)?;
    let job = args.name.job;
    let exec = describe(args.around, args.command, true)?;
    let no_terminal = || {
        let queue = match args.queue.args().name() {
            // An address can have a password.
            Some(name) if args.queue.is_named() && name.contains('@') => "--queue URL ".to_owned(),
            Some(name) if args.queue.is_named() => format!("--queue {name} "),
            _ => String::new(),
        };
        let hint = format!("write `metaservice exec {queue}-i {job} -- sh` to send it a script");
        Error::new(Hint(hint)).context("a shell needs a terminal, and standard input is not one")
    };
    attend(&job, &args.queue, exec, true, escape, no_terminal, printer).await
}
