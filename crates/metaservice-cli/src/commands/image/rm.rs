//! `metaservice image rm`: removes names of images, and images without names.

use anyhow::{Context, Result, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use metaservice_image::{ImageName, ImageStore};
use metaservice_qemu::SnapshotStore;
use serde_json::json;

use crate::completions;
use crate::hints;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
An image is removed with its last name. sha256:DIGEST removes an image with all of its names. The
snapshots of the image are removed too. Running machines are not affected. Prepared images do not
need the image from which they were made.

Example:
  metaservice image rm debian";

/// Remove images.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Rm {
    /// A name, or sha256:DIGEST. Repeatable.
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(completions::images))]
    pub(crate) names: Vec<String>,
}

pub(super) fn rm(args: &Rm, printer: Printer) -> Result<ExitStatus> {
    let store = ImageStore::of_user()?;
    let mut failed = 0;
    for name in &args.names {
        if let Err(error) = remove(&store, name, printer) {
            failed += 1;
            printer.error(&error);
        }
    }
    match failed {
        0 => Ok(ExitStatus::SUCCESS),
        _ if args.names.len() == 1 => Ok(ExitStatus::FAILED),
        _ => bail!("{failed} of {} names were not removed", args.names.len()),
    }
}

fn remove(store: &ImageStore, word: &str, printer: Printer) -> Result<()> {
    if !word.starts_with("sha256:") {
        word.parse::<ImageName>().with_context(|| format!("cannot remove {word}"))?;
    }
    let removed = store.remove(word).map_err(|error| hints::store(error, store))?;
    if let Some(disk) = &removed.disk {
        // A snapshot cannot be restored without the disk of its image.
        if let Ok(saved) = SnapshotStore::of_user() {
            saved.remove_by_disk(disk);
        }
    }
    let digest = removed.digest.to_string();
    let gone = removed.disk.is_some();
    printer.note(&match gone {
        true => format!("{word} is removed"),
        false => format!("{word} is removed; its image has other names"),
    });
    printer.event("removed", json!({ "name": word, "digest": digest, "imageIsGone": gone }));
    Ok(())
}
