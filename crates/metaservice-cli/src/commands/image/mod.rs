//! `metaservice image`: disk images and snapshots.

mod import;
mod ls;
mod prepare;
mod progress;
mod prune;
mod rm;
mod snapshot;

use anyhow::Result;
use clap::{Args, Subcommand};

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
    Prepare(Box<prepare::Prepare>),
    Snapshot(snapshot::Snapshot),
    Prune(prune::Prune),
}

pub(crate) async fn image(args: Image, printer: Printer) -> Result<ExitStatus> {
    match args.command {
        ImageCommand::Import(args) => import::import(&args, printer).await,
        ImageCommand::Ls(args) => ls::ls(&args, printer),
        ImageCommand::Rm(args) => rm::rm(&args, printer),
        ImageCommand::Prepare(args) => prepare::prepare(*args, printer).await,
        ImageCommand::Snapshot(args) => snapshot::snapshot(&args, printer).await,
        ImageCommand::Prune(args) => prune::prune(&args, printer),
    }
}
