//! `metaservice net`: what the guests of jobs may connect to.
//!
//! The verb comes before the job, as in `metaservice logs JOB`: so a job can have the name `check`.

mod change;
mod check;
mod job;
mod log;
mod presets;
mod publish;
mod show;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// Check and change what a guest may connect to.
#[derive(Debug, Args)]
pub(crate) struct Net {
    #[command(subcommand)]
    command: NetCommand,
}

#[derive(Debug, Subcommand)]
enum NetCommand {
    Check(check::Check),
    Presets(presets::Presets),
    Show(show::Show),
    Log(log::Log),
    Allow(change::Allow),
    Deny(change::Deny),
    Publish(publish::Publish),
}

pub(crate) async fn net(args: Net, printer: Printer) -> Result<ExitStatus> {
    match args.command {
        NetCommand::Check(args) => check::check(args, printer),
        NetCommand::Presets(args) => presets::presets(&args, printer),
        NetCommand::Show(args) => show::show(args, printer).await,
        NetCommand::Log(args) => log::log(args).await,
        NetCommand::Allow(args) => change::allow(args, printer).await,
        NetCommand::Deny(args) => change::deny(args, printer).await,
        NetCommand::Publish(args) => publish::publish(args, printer).await,
    }
}
