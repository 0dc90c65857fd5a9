//! `metaservice image prune`: removes snapshots.

use anyhow::Result;
use clap::Args;
use indicatif::BinaryBytes;
use metaservice_image::ImageStore;
use metaservice_qemu::SnapshotStore;
use serde_json::json;

use super::ls::{describe_snapshot, image_of};
use crate::output::printer::{Printer, printable};
use crate::status::ExitStatus;

const HELP: &str = "\
A snapshot that a machine runs from stays. The next run of the built-in guest boots, and creates a
new snapshot. Only \"image snapshot\" creates one of an image.

All snapshots of the built-in guest take at most 4 GiB together, or METASERVICE_SNAPSHOT_LIMIT. A
new one removes the least recently used ones.

Examples:
  metaservice image ls --snapshots
  metaservice image prune";

/// Remove the snapshots that runs have made.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Prune {
    /// Also remove the snapshots of images.
    #[arg(short, long)]
    pub(crate) all: bool,
}

pub(super) fn prune(args: &Prune, printer: Printer) -> Result<ExitStatus> {
    let (images, _) = ImageStore::of_user()?.list()?;
    let removed = SnapshotStore::of_user()?.prune(args.all);
    for snapshot in &removed {
        let image = printable(&image_of(snapshot, &images));
        let size = BinaryBytes(snapshot.size);
        printer.note(&format!("a snapshot of {image} is removed: {size}"));
        printer.event("removed", json!({ "snapshot": describe_snapshot(snapshot, &images) }));
    }
    if removed.is_empty() {
        printer.note("there is no snapshot to remove");
    }
    Ok(ExitStatus::SUCCESS)
}
