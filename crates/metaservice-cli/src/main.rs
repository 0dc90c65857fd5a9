//! The command line tool `metaservice`.
//!
//! Flags are read ([`args`]), resolved to values that are known to be good
//! ([`settings`]), and handed to one function for each verb ([`commands`]), which
//! returns what to exit with. Errors become words here, once.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod artifacts;
mod commands;
mod conduct;
mod drain;
mod interrupts;
mod listeners;
mod machine;
mod printer;
mod settings;
mod sockets;
mod status;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::printer::Printer;
use crate::status::ExitStatus;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed cannot be helped either.
            let _ = error.print();
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if shown { ExitStatus::SUCCESS } else { ExitStatus::FAILED }.into();
        }
    };
    trace(cli.output.verbose);
    let printer = Printer::new(&cli.output);
    let status = dispatch(cli, printer).unwrap_or_else(|error| {
        printer.error(&error);
        ExitStatus::FAILED
    });
    status.into()
}

fn dispatch(cli: Cli, printer: Printer) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    let status = match cli.command {
        Command::Run(args) => runtime.block_on(commands::run::run(args, printer)),
        Command::Serve(args) => runtime.block_on(commands::serve::serve(args, printer)),
        Command::Ps => runtime.block_on(commands::ps::ps(printer)),
        Command::Exec(args) => runtime.block_on(commands::exec::exec(args)),
        Command::Ls(args) => runtime.block_on(commands::ls::ls(args, printer)),
        Command::Kill { job } => runtime.block_on(commands::kill::kill(&job)),
        Command::Doctor(args) => runtime.block_on(commands::doctor::doctor(&args, printer)),
        Command::Completions { shell } => Ok(commands::completions::completions(shell)),
    };
    // A write to a full pipe cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    status
}

fn trace(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = ["error", "info,metaservice=debug", "trace"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_env("METASERVICE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
}
