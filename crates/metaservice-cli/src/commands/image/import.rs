//! `metaservice image import`: copies a disk image into the store, under a name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice_image::{Format, ImageName, ImageStore};
use serde_json::{Value, json};

use super::progress::with_progress;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output;
use crate::output::printer::{Hint, Printer};
use crate::status::ExitStatus;

const HELP: &str = "\
The file is copied. You can remove it afterwards. The format, raw or qcow2, is found by content. An
image that names other files of the host, is encrypted or is broken is refused.

Images are stored in $XDG_DATA_HOME/metaservice/images (~/.local/share/...), under the SHA-256
digest of their content, for this user only. The digest is printed. The same content is stored once,
with any number of names.

Example:
  metaservice image import debian-12-generic-amd64.qcow2 --name debian
  metaservice run --image debian -- apt-get --version";

/// Import a copy of a disk image under a name.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Import {
    /// The disk image.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The name [default: the name of the file without its extension].
    ///
    /// A name has letters, digits, dots, dashes and underscores.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

pub(super) async fn import(args: &Import, printer: Printer) -> Result<ExitStatus> {
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
    let importing = with_progress(printer, "importing", total, &mut interrupts, move |observe| {
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

/// Returns whether a raw disk has a boot sector.
fn boots(disk: &Path) -> bool {
    let mut sector = [0; 512];
    let read = File::open(disk).and_then(|mut file| file.read_exact(&mut sector));
    read.is_ok() && sector.ends_with(&[0x55, 0xaa])
}

/// Returns the notes that the store keeps about an imported file.
fn origin(file: &Path) -> Value {
    json!({ "source": file.file_name().and_then(|name| name.to_str()) })
}
