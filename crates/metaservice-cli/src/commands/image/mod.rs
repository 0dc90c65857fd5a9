//! `metaservice image`: what machines start from.

mod import;
mod ls;
mod prepare;
mod rm;
mod snapshot;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::{Args, Subcommand};
use metaservice_image::{Observer, StoreError};

use crate::interrupts::{Interrupt, Interrupts};
use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// Manage disk images, and snapshots for a fast start.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Import(import::Import),
    Ls(ls::Ls),
    Rm(rm::Rm),
    Prepare(prepare::Prepare),
    Snapshot(snapshot::Snapshot),
}

pub(crate) async fn image(args: Image, printer: Printer) -> Result<ExitStatus> {
    match args.command {
        ImageCommand::Import(args) => import::import(&args, printer).await,
        ImageCommand::Ls(_) => ls::ls(printer),
        ImageCommand::Rm(args) => rm::rm(&args, printer),
        ImageCommand::Prepare(args) => prepare::prepare(args, printer).await,
        ImageCommand::Snapshot(args) => snapshot::snapshot(&args, printer).await,
    }
}

/// Work on large files: with a bar, and to be interrupted. What was begun is undone by then.
async fn at_length<T: Send + 'static>(
    printer: Printer,
    what: &str,
    total: Option<u64>,
    interrupts: &mut Interrupts,
    work: impl FnOnce(Observer<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<Result<T, Interrupt>, StoreError> {
    let progress = printer.progress(what, total);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut working = tokio::task::spawn_blocking(move || {
        work(&mut |bytes| {
            progress.count(bytes);
            if stopped.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    });
    let mut interrupted = None;
    let done = tokio::select! {
        done = &mut working => done,
        interrupt = interrupts.next() => {
            stop.store(true, Ordering::Relaxed);
            interrupted = Some(interrupt);
            working.await
        }
    };
    match (done.unwrap_or(Err(StoreError::Stopped)), interrupted) {
        (Err(StoreError::Stopped), Some(interrupt)) => Ok(Err(interrupt)),
        (done, _) => done.map(Ok),
    }
}
