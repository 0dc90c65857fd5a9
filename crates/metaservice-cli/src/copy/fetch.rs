//! Out of a guest.

use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use metaservice::control::{BodyReader, Client, ClientError, Code};
use metaservice::{FileHead, Form};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};

use super::folder;
use super::place::{self, Place};
use crate::destination::{Destination, Named};
use crate::printer::Printer;
use crate::progress::Progress;

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// What of a file's mode is kept: a guest makes no program that runs as its owner.
const MODE: u32 = 0o777;

/// Copies what is at `path` in the guest to a place here.
///
/// # Cancellation
/// Dropping the future removes what was written, unless it went into a folder that was there.
pub(crate) async fn fetch(client: &Client, path: &str, to: Place, printer: Printer) -> Result<()> {
    let cannot = || format!("cannot copy {path}");
    let to = match to {
        Place::Host(to) => to,
        _ => {
            ensure!(
                !std::io::stdout().is_terminal(),
                "an archive is not written to a terminal: lead it into a file or a program"
            );
            let (_, body) = client.read(path, Form::Archive).await.with_context(cannot)?;
            return stream(body, path, printer).await.with_context(cannot);
        }
    };
    let (head, body) = match client.read(path, Form::Any).await {
        Ok(read) => read,
        Err(unsupported @ ClientError::Refused { code: Code::Unsupported, .. }) => {
            let fetched = fetch_plain(client, path, &to, printer).await;
            if fetched.is_err() && is_folder(client, path).await {
                return Err(unsupported).with_context(cannot);
            }
            return fetched.with_context(cannot);
        }
        Err(error) => return Err(error).with_context(cannot),
    };
    let is_folder = head.form == Form::Archive;
    let (target, named) = place::target(&to, place::name(path), is_folder)?;
    let progress = printer.progress(path, head.size);
    let counted = progress.of(body);
    if is_folder {
        folder::unpack(counted, &target).await.with_context(cannot)?;
    } else {
        store(counted, &target, named, head).await.with_context(cannot)?;
    }
    told(printer, path, &target.display().to_string(), &progress);
    Ok(())
}

/// Says what was copied.
pub(super) fn told(printer: Printer, from: &str, to: &str, progress: &Progress) {
    let bytes = progress.bytes();
    printer.note(&format!("{from} -> {to} ({bytes} bytes)"));
    printer.event("copied", json!({ "source": from, "destination": to, "bytes": bytes }));
}

/// A tar archive to stdout.
async fn stream(body: BodyReader, path: &str, printer: Printer) -> Result<()> {
    let progress = printer.progress(path, None);
    let mut stdout = tokio::io::stdout();
    tokio::io::copy_buf(&mut BufReader::with_capacity(BLOCK, progress.of(body)), &mut stdout)
        .await?;
    Ok(stdout.flush().await?)
}

/// A file of an agent of version 1, which says nothing of its attributes.
async fn fetch_plain(client: &Client, path: &str, to: &Path, printer: Printer) -> Result<()> {
    let (target, named) = place::target(to, place::name(path), false)?;
    let progress = printer.progress(path, None);
    let place = open(&target, named, 0o666).await?;
    let mut file = tokio::fs::File::from_std(place.file().try_clone()?);
    let bytes = client.get_artifact(path, &mut file).await?;
    file.flush().await?;
    place.keep()?;
    progress.count(bytes);
    told(printer, path, &target.display().to_string(), &progress);
    Ok(())
}

/// Whether an agent of version 1, which fails to read a folder without a reason, lists files below
/// `path`. Of a plain file it lists the file alone.
async fn is_folder(client: &Client, path: &str) -> bool {
    let listed = client.list_folder(path).await.unwrap_or_default();
    listed.iter().any(|file| file != path.trim_end_matches('/'))
}

/// A file with its attributes.
async fn store(
    body: impl AsyncRead + Unpin,
    target: &Path,
    named: Named,
    head: FileHead,
) -> Result<()> {
    let place = open(target, named, 0o600).await?;
    let mut file = tokio::fs::File::from_std(place.file().try_clone()?);
    tokio::io::copy_buf(&mut BufReader::with_capacity(BLOCK, body), &mut file).await?;
    file.flush().await?;
    let file = file.into_std().await;
    if place.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(head.mode & MODE))?;
        if let Some(modified) = time(head.mtime_ns) {
            file.set_modified(modified)?;
        }
    }
    Ok(place.keep()?)
}

async fn open(target: &Path, named: Named, mode: u32) -> Result<Destination> {
    let opened = Destination::open_async(target.to_owned(), named, mode).await;
    opened.with_context(|| format!("cannot write {}", target.display()))
}

/// A moment that the guest claims; none that the host cannot express.
fn time(mtime_ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    if mtime_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}
