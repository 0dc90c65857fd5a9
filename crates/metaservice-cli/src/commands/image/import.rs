//! `metaservice image import`: a copy of a disk image under a name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Error, Result};
use metaservice_image::{Format, ImageName, ImageStore};
use serde_json::{Value, json};

use super::at_length;
use crate::args::ImportArgs;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Hint, Printer};
use crate::status::ExitStatus;

pub(super) async fn import(args: &ImportArgs, printer: Printer) -> Result<ExitStatus> {
    let name: ImageName = match &args.name {
        Some(name) => name.parse().context("in --name")?,
        None => ImageName::suggested(&args.file).ok_or_else(|| {
            let file = args.file.display();
            Error::new(Hint("give it a name: --name NAME".to_owned()))
                .context(format!("the name of {file} is none that an image can have"))
        })?,
    };
    let store = ImageStore::of_user()?;
    let mut interrupts = Interrupts::listen()?;
    let total = std::fs::metadata(&args.file).ok().map(|metadata| metadata.len());
    let (kept, file, called) = (store.clone(), args.file.clone(), name.clone());
    let importing = at_length(printer, "importing", total, &mut interrupts, move |observe| {
        kept.import(&file, &called, &origin(&file), observe)
    });
    let image = match importing.await.map_err(|error| hints::store(error, &store))? {
        Ok(image) => image,
        Err(interrupt) => return Ok(ExitStatus::signal(interrupt.number)),
    };
    printer.note(&format!("{name} is kept"));
    if image.format == Format::Raw && !boots(image.disk().path()) {
        printer.note("it has no boot sector: a machine of it boots with --kernel only");
    }
    printer.event("imported", json!({ "name": name.as_str(), "digest": image.digest.to_string() }));
    output::line(&image.digest)?;
    Ok(ExitStatus::SUCCESS)
}

/// Whether a raw disk begins as what firmware boots, or is partitioned, does.
fn boots(disk: &Path) -> bool {
    let mut sector = [0; 512];
    let read = File::open(disk).and_then(|mut file| file.read_exact(&mut sector));
    read.is_ok() && sector.ends_with(&[0x55, 0xaa])
}

/// The words that the store keeps with an image that comes from a file.
fn origin(file: &Path) -> Value {
    json!({ "source": file.file_name().and_then(|name| name.to_str()) })
}
