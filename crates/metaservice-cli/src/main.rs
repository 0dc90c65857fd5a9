//! The command line tool `metaservice`.
//!
//! Flags are read ([`args`]), resolved to values that are known to be good
//! ([`settings`]), and handed to one function for each verb ([`commands`]), which
//! returns what to exit with. Errors become words here, once.

#![forbid(unsafe_code)]
// They panic where nothing can be written. [`output`] and [`stderr`] do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod candidates;
mod cli;
mod commands;
mod description;
mod flags;
mod hints;
mod interrupts;
mod limits;
mod listeners;
mod output;
mod secrets;
mod signals;
mod status;
mod terminal;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;

use crate::cli::Cli;
use crate::output::printer::{Hint, Printer};
use crate::output::stderr;
use crate::status::ExitStatus;

fn main() -> ExitCode {
    // Before any thread: what the parent ignores or blocks is not meant for this process. Where the
    // kernel refuses, things are as they were.
    let _ = metaservice_qemu::reset_signals();
    // Ends the process when it is the completion script that asks.
    CompleteEnv::with_factory(Cli::command).var(commands::completions::VARIABLE).complete();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = commands::help::show(error, &Cli::command());
            stderr::drain();
            return status.into();
        }
    };
    trace(cli.output.verbose);
    let printer = Printer::new(&cli.output);
    let status = secrets::withdraw(&mut cli)
        .context("cannot take secrets out of the environment")
        .and_then(|()| raise_descriptors())
        .and_then(|()| dispatch(cli, printer));
    let status = status.unwrap_or_else(|error| {
        if output::is_closed(&error) {
            return ExitStatus::SUCCESS;
        }
        printer.error(&error);
        ExitStatus::FAILED
    });
    interrupts::verb_is_over();
    stderr::drain();
    status.into()
}

/// With so many descriptors a job runs, and its machine is made ready.
const LEAST_DESCRIPTORS: u64 = 64;

/// A guest's connections are descriptors of ours, and the usual limit is no more than they may be.
fn raise_descriptors() -> Result<()> {
    match metaservice_qemu::raise_descriptors() {
        Some(most) if most < LEAST_DESCRIPTORS => {
            let hint = Hint(format!("type 'ulimit -n {LEAST_DESCRIPTORS}', or more, before this"));
            let what = format!("the limit of open files is {most}, which is too small");
            Err(anyhow::Error::new(hint).context(what))
        }
        _ => Ok(()),
    }
}

/// A write beyond the limit of a file's size fails, as one to a full disk, instead of ending the
/// process with all that it was to clean up. A program that is started has the signal as it was.
fn outlive_file_limit(runtime: &tokio::runtime::Runtime) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _within = runtime.enter();
    let number = rustix::process::Signal::XFSZ.as_raw();
    // The handler stays when the stream of signals is dropped.
    signal(SignalKind::from_raw(number)).map(drop).context("cannot listen for signals")
}

fn dispatch(cli: Cli, printer: Printer) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    outlive_file_limit(&runtime)?;
    let status = runtime.block_on(cli.command.run(Cli::command(), printer));
    // A write to a full pipe cannot be cancelled, and is not waited for.
    runtime.shutdown_background();
    status
}

fn trace(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = ["error", "info,metaservice=debug", "trace"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_env("METASERVICE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_writer(|| stderr::Trace)
        .log_internal_errors(false)
        .with_ansi(output::has_colours(&std::io::stderr()))
        .with_env_filter(filter)
        .init();
}
