//! `metaservice image ls`: lists the images of this user.

use anyhow::{Error, Result};
use clap::Args;
use indicatif::BinaryBytes;
use metaservice_image::{BrokenImage, Format, ImageName, ImageStore, StoredImage};
use metaservice_qemu::{SnapshotStore, StoredSnapshot};
use metaservice_sandbox::machine::Prepared;
use serde_json::{Value, json};

use crate::output;
use crate::output::printer::{Printer, json_text, printable};
use crate::status::ExitStatus;

const HELP: &str = "\
With -q, only the names are printed. With --json, the output is an array of all details.

With --snapshots, the list has each snapshot with its image, the size of the machine, its size on
the disk, and when a machine was restored from it last.

Examples:
  metaservice image ls
  metaservice image ls --snapshots";

/// List the images, or the snapshots.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Ls {
    /// List the snapshots instead.
    #[arg(long)]
    pub(crate) snapshots: bool,
}

pub(super) fn ls(args: &Ls, printer: Printer) -> Result<ExitStatus> {
    if args.snapshots {
        return snapshots(printer);
    }
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

/// Lists the snapshots.
fn snapshots(printer: Printer) -> Result<ExitStatus> {
    let all = SnapshotStore::of_user()?.list();
    let (images, _) = ImageStore::of_user()?.list()?;
    if printer.is_quiet() {
        for snapshot in &all {
            output::line(&snapshot.name)?;
        }
        return Ok(ExitStatus::SUCCESS);
    }
    if printer.is_json() {
        let all: Vec<Value> = all.iter().map(|one| describe_snapshot(one, &images)).collect();
        output::line(json_text(&json!(all).to_string()))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let head = ["SNAPSHOT", "CPUS", "MEMORY", "SIZE", "LAST USED", "IN USE", "IMAGE"];
    output::line(snapshot_line(head))?;
    for one in &all {
        let used = humantime::format_rfc3339_seconds(one.used).to_string();
        let words = [
            one.name.get(..12).unwrap_or(&one.name),
            &one.cpus.map_or_else(|| "-".to_owned(), |cpus| cpus.to_string()),
            &BinaryBytes(one.memory).to_string(),
            &BinaryBytes(one.size).to_string(),
            &used.replace('T', " ")[..16],
            if one.in_use { "yes" } else { "no" },
            &printable(&image_of(one, &images)),
        ];
        output::line(snapshot_line(words))?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn snapshot_line([name, cpus, memory, size, used, in_use, image]: [&str; 7]) -> String {
    format!("{name:<12}  {cpus:>4}  {memory:>10}  {size:>10}  {used:<16}  {in_use:<6}  {image}")
}

/// The names of the image that a snapshot is of.
pub(super) fn image_of(snapshot: &StoredSnapshot, images: &[StoredImage]) -> String {
    let Some(disk) = &snapshot.disk else { return "builtin".to_owned() };
    match images.iter().find(|image| image.disk().path() == disk) {
        Some(image) if image.names.is_empty() => image.digest.to_string(),
        Some(image) => names(image),
        None => disk.display().to_string(),
    }
}

pub(super) fn describe_snapshot(snapshot: &StoredSnapshot, images: &[StoredImage]) -> Value {
    json!({
        "name": snapshot.name,
        "image": image_of(snapshot, images),
        "automatic": snapshot.disk.is_none(),
        "cpus": snapshot.cpus,
        "memory": snapshot.memory,
        "bytes": snapshot.size,
        "lastUsed": humantime::format_rfc3339_seconds(snapshot.used).to_string(),
        "inUse": snapshot.in_use,
    })
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
