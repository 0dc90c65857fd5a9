//! Into a guest.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use metaservice::control::Client;
use metaservice::{Destination, Form};
use tokio::io::AsyncRead;

use super::fetch::told;
use super::folder;
use super::place::{self, Place};
use crate::printer::Printer;
use crate::progress::Progress;

/// Copies a place here to `path` in the guest.
///
/// # Cancellation
/// Dropping the future cuts the transfer: of a file nothing is left, of a folder what came.
pub(crate) async fn send(client: &Client, from: Place, path: &str, printer: Printer) -> Result<()> {
    let from = match from {
        Place::Host(from) => from,
        _ => return send_stream(client, path, printer).await,
    };
    let text = from.to_string_lossy().into_owned();
    // A slash at the end, or a dot, means what a link leads to.
    let follow = text.ends_with('/') || text.ends_with("/.");
    let inspect = if follow { std::fs::metadata } else { std::fs::symlink_metadata };
    let metadata = inspect(&from).with_context(|| format!("cannot read {text}"))?;
    let name = place::name(&text).map(str::to_owned);
    let destination = |form, mode, mtime_ns| Destination {
        path: path.to_owned(),
        name: name.clone(),
        form,
        mode,
        mtime_ns,
    };
    if metadata.is_file() {
        let file = tokio::fs::File::open(&from).await;
        let file = file.with_context(|| format!("cannot read {text}"))?;
        let mtime = metadata.mtime().checked_mul(1_000_000_000);
        let mtime = mtime.and_then(|mtime| mtime.checked_add(metadata.mtime_nsec()));
        let to = destination(Form::File, Some(metadata.mode() & 0o7777), mtime);
        let progress = printer.progress(&text, Some(metadata.len()));
        return carry(client, to, file, &text, &progress, printer).await;
    }
    if !metadata.is_dir() && !metadata.is_symlink() {
        bail!("{text} is neither file, folder nor link");
    }
    let folder = PathBuf::from(&from);
    let total = tokio::task::spawn_blocking(move || size(&folder)).await?;
    let progress = printer.progress(&text, total);
    let mut to = destination(Form::Archive, None, None);
    if metadata.is_symlink() {
        // One member of its own name, which goes beside its brothers.
        to = in_folder_of(to);
    }
    carry(client, to, folder::pack(from)?, &text, &progress, printer).await
}

/// A link as an archive is unpacked in the folder that is to have it.
fn in_folder_of(destination: Destination) -> Destination {
    Destination { name: None, ..destination }
}

async fn send_stream(client: &Client, path: &str, printer: Printer) -> Result<()> {
    let destination = Destination::folder(path);
    let progress = printer.progress(path, None);
    carry(client, destination, tokio::io::stdin(), "-", &progress, printer).await
}

async fn carry(
    client: &Client,
    destination: Destination,
    source: impl AsyncRead + Send + Unpin + 'static,
    from: &str,
    progress: &Progress,
    printer: Printer,
) -> Result<()> {
    let to = destination.path.clone();
    let written = client.write(destination, progress.of(source)).await;
    written.with_context(|| format!("cannot copy to {to}"))?;
    told(printer, from, &to, progress);
    Ok(())
}

/// About how long a folder's archive is: what the bar's end is. Nothing that changes meanwhile
/// matters for it.
fn size(folder: &Path) -> Option<u64> {
    let mut total = 1024;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            // Three blocks of headers, then the content in whole blocks.
            total += 1536;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.len().next_multiple_of(512);
            }
        }
    }
    Some(total)
}
