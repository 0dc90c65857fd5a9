//! The command line tool `metaservice`.
//!
//! This module owns the start and the end of the process. The other modules:
//!
//! - [`cli`]: the parser of the command line.
//! - [`config`]: the configuration file and its profiles.
//! - [`words`]: the words of the command line, with the options of a profile.
//! - [`flags`]: the flags that several verbs share.
//! - [`commands`]: one module for each verb, which returns the exit status.
//! - [`description`]: builds the description of a job from flags or a file.
//! - [`foreground`]: the process that the user's shell waits for, if the job may outlive it.
//! - [`hints`]: turns errors of the libraries into errors with a hint.
//! - [`output`]: everything that is printed on standard output and standard error.
//! - [`terminal`]: the user's terminal while a command in the guest uses it.
//!
//! The libraries return typed errors. Only this crate turns them into text for people.

#![forbid(unsafe_code)]
// These macros panic if the write fails. [`output`] does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod commands;
mod completions;
mod config;
mod description;
mod flags;
mod foreground;
mod hints;
mod interrupts;
mod jobs;
mod limits;
mod listeners;
mod local_queue;
mod output;
mod secrets;
mod signals;
mod similar;
mod status;
mod terminal;
mod words;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::CompleteEnv;

use crate::cli::Cli;
use crate::output::printer::{Hint, Printer};
use crate::output::stderr;
use crate::status::ExitStatus;
use crate::words::Unparsed;

fn main() -> ExitCode {
    // This must come before any thread. Signals that the parent ignores or blocks are not meant for
    // this process. If the reset fails, the signals stay as they were.
    let _ = metaservice_qemu::reset_signals();
    if let Some(status) = foreground::wait() {
        return status.unwrap_or(ExitStatus::FAILED).into();
    }
    // If the completion script calls the tool, this prints completions and ends the process.
    CompleteEnv::with_factory(Cli::command).var(commands::completions::VARIABLE).complete();
    let mut cli = match words::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(unparsed) => {
            let status = refuse(unparsed);
            stderr::drain();
            return status.into();
        }
    };
    trace(cli.output.verbose);
    let printer = Printer::new(&cli.output);
    let status = foreground::divide(cli.command.may_leave())
        .context("cannot start the process of the job")
        .and_then(|()| {
            secrets::withdraw(&mut cli).context("cannot take secrets out of the environment")
        })
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

/// Prints why a command line cannot be parsed, or the help.
fn refuse(unparsed: Unparsed) -> ExitStatus {
    match unparsed {
        Unparsed::Words(error) => commands::help::show(error, &Cli::command()),
        Unparsed::Config(error, output) => {
            Printer::new(&output).error(&error);
            ExitStatus::FAILED
        }
    }
}

/// The number of descriptors that a job and its machine need.
const LEAST_DESCRIPTORS: u64 = 64;

/// Raises the limit of open files. Each connection of a guest uses a descriptor, and the default
/// limit is about the number of connections that are allowed.
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

/// Handles SIGXFSZ, so that a write beyond the file size limit fails like a write to a full disk.
/// By default, the signal would end the process without any cleanup.
///
/// Programs that this process starts have the default action again.
fn outlive_file_limit(runtime: &tokio::runtime::Runtime) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _within = runtime.enter();
    let number = rustix::process::Signal::XFSZ.as_raw();
    // The handler stays installed when the stream is dropped.
    signal(SignalKind::from_raw(number)).map(drop).context("cannot listen for signals")
}

fn dispatch(cli: Cli, printer: Printer) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    outlive_file_limit(&runtime)?;
    let status = runtime.block_on(cli.command.run(Cli::command(), printer));
    // A write to a full pipe cannot be cancelled, so the process does not wait for it.
    runtime.shutdown_background();
    status
}

fn trace(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    // The NATS client reports each failure as an error value too.
    let level =
        ["error,async_nats=off", "info,metaservice=debug", "trace"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_env("METASERVICE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_writer(|| stderr::Trace)
        .log_internal_errors(false)
        .with_ansi(output::has_colours(&std::io::stderr()))
        .with_env_filter(filter)
        .init();
}
