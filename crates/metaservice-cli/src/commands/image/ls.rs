//! `metaservice image ls`: lists the images of this user.

use anyhow::{Error, Result};
use clap::Args;
use indicatif::BinaryBytes;
use metaservice_image::{BrokenImage, Format, ImageName, ImageStore, StoredImage};
use metaservice_qemu::SnapshotStore;
use metaservice_sandbox::machine::Prepared;
use serde_json::{Value, json};

use crate::output;
use crate::output::printer::{Printer, json_text};
use crate::status::ExitStatus;

const HELP: &str = "\
With -q, only the names are printed. With --json, the output is an array of all details.";

/// List the images.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Ls {}

pub(super) fn ls(printer: Printer) -> Result<ExitStatus> {
    let (images, broken) = ImageStore::of_user()?.list()?;
    // Without a cache directory, there are no snapshots.
    let saved = SnapshotStore::of_user().map(|saved| saved.disks()).unwrap_or_default();
    let saved = |image: &StoredImage| {
        let disk = image.disk();
        saved.iter().filter(|path| *path == disk.path()).count()
    };
    if printer.is_quiet() {
        for name in images.iter().flat_map(|image| &image.names) {
            output::line(name)?;
        }
        return Ok(ExitStatus::SUCCESS);
    }
    if printer.is_json() {
        let all: Vec<Value> = images.iter().map(|image| describe(image, saved(image))).collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    for BrokenImage { digest, names, why, .. } in broken {
        let name = names.first().map_or_else(|| digest.to_string(), ToString::to_string);
        printer.error(&Error::new(why).context(format!("{name} cannot be used")));
    }
    let names: Vec<_> = images.iter().map(names).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).max(4);
    let head = ["DIGEST", "FORMAT", "SIZE", "CREATED", "SAVED", "PREPARED FROM"];
    output::line(line(width, "NAME", head))?;
    for (image, name) in images.iter().zip(&names) {
        let created = humantime::format_rfc3339_seconds(image.created).to_string();
        let prepared = Prepared::read(&image.notes);
        let words = [
            image.digest.short(),
            format(image.format),
            &BinaryBytes(image.occupied).to_string(),
            &created.replace('T', " ")[..16],
            &saved(image).to_string(),
            prepared.as_ref().map_or("-", |prepared| &prepared.from),
        ];
        output::line(line(width, name, words))?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn line(
    width: usize,
    name: &str,
    [digest, format, size, created, saved, from]: [&str; 6],
) -> String {
    format!(
        "{name:<width$}  {digest:<12}  {format:<6}  {size:>10}  {created:<16}  {saved:<5}  {from}"
    )
}

fn names(image: &StoredImage) -> String {
    match image.names.as_slice() {
        [] => "-".to_owned(),
        names => names.iter().map(ImageName::as_str).collect::<Vec<_>>().join(","),
    }
}

fn describe(image: &StoredImage, saved: usize) -> Value {
    json!({
        "names": image.names.iter().map(ImageName::as_str).collect::<Vec<_>>(),
        "digest": image.digest.to_string(),
        "format": format(image.format),
        "bytes": image.occupied,
        "created": humantime::format_rfc3339_seconds(image.created).to_string(),
        "source": image.notes.get("source"),
        "prepared": image.notes.get("prepared"),
        "saved": saved,
    })
}

const fn format(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
        Format::Vmdk => "vmdk",
        Format::Vhdx => "vhdx",
    }
}
