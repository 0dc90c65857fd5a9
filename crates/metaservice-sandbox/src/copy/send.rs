//! Copies from the host to a guest.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use metaservice::{Destination, Form};
use metaservice_archive::Packed;

use super::content::Content;
use super::error::{CopyError, PlaceError};
use super::guest::Guest;
use super::how::How;
use super::observer::{Observer, Step};
use super::whole::Whole;
use super::{archive, place};

/// A destination in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestTarget {
    /// The path in the guest.
    pub path: String,
    /// The name of the copy, if `path` is a directory. `None`: the directory gets the content.
    pub name: Option<String>,
}

impl GuestTarget {
    /// The destination that `docker cp` has for this source.
    #[must_use]
    pub fn path(path: impl Into<String>, source: &Path) -> Self {
        let name = place::name(&source.to_string_lossy()).map(str::to_owned);
        Self { path: path.into(), name }
    }

    /// Exactly this path.
    #[must_use]
    pub fn exactly(path: impl Into<String>) -> Self {
        Self { path: path.into(), name: None }
    }
}

/// Copies a file, a directory or a link of the host into the guest.
///
/// # Errors
/// [`CopyError`]. A file in the guest is then unchanged; a directory has its first files.
///
/// # Cancellation
/// Dropping the future ends the transfer. A file leaves nothing, and a directory keeps the complete
/// files.
pub async fn send(
    guest: &impl Guest,
    from: &Path,
    to: GuestTarget,
    how: How,
    observer: &Observer,
) -> Result<Content, CopyError> {
    let cannot = |cause| CopyError::Read { path: from.to_owned(), cause };
    let follow = how.follows(&from.to_string_lossy());
    let inspect = if follow { std::fs::metadata } else { std::fs::symlink_metadata };
    let metadata = inspect(from).map_err(cannot)?;
    let mut destination = Destination::file(to.path.clone());
    destination.name = to.name;
    destination.set_id = how.set_id;
    if metadata.is_file() {
        let file = tokio::fs::File::open(from).await.map_err(cannot)?;
        let mtime = metadata.mtime().checked_mul(1_000_000_000);
        destination.mtime_ns = mtime.and_then(|mtime| mtime.checked_add(metadata.mtime_nsec()));
        destination.mode = Some(metadata.mode() & how.mask());
        observer.observe(Step::Total(Some(metadata.len())));
        let whole = Whole::new(observer.of(file), metadata.len());
        guest.write(destination, Box::pin(whole)).await?;
        return Ok(Content::file(metadata.len()));
    }
    if metadata.is_symlink() {
        return send_link(guest, from.to_owned(), &to.path, observer).await;
    }
    if !metadata.is_dir() {
        return Err(CopyError::Kind(from.to_owned()));
    }
    // With a slash at its end, a link stands for its target.
    let from = if follow { from.join("") } else { from.to_owned() };
    let directory = from.clone();
    let total = tokio::task::spawn_blocking(move || size(&directory)).await;
    observer.observe(Step::Total(total.ok().flatten()));
    destination.form = Form::Archive;
    let packing = archive::pack(from, None, observer.counter())?;
    let packed = packing.packed();
    guest.write(destination, Box::pin(packing)).await?;
    Ok(content(&packed))
}

/// Sends a link as an archive of itself, which is unpacked in the directory of the destination.
async fn send_link(
    guest: &impl Guest,
    from: PathBuf,
    path: &str,
    observer: &Observer,
) -> Result<Content, CopyError> {
    let (directory, name) = if guest.is_directory(path).await? {
        (path, None)
    } else {
        let (directory, name) = match path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(split) => split,
            None => (".", path),
        };
        if name.is_empty() {
            return Err(PlaceError::NoGuestDirectory(path.to_owned()).into());
        }
        if !guest.is_directory(directory).await? {
            return Err(PlaceError::NoGuestDirectory(directory.to_owned()).into());
        }
        (directory, Some(OsString::from(name)))
    };
    let packing = archive::pack(from, name, observer.counter())?;
    let packed = packing.packed();
    guest.write(Destination::directory(directory), Box::pin(packing)).await?;
    Ok(content(&packed))
}

fn content(packed: &OnceLock<Packed>) -> Content {
    let Packed { files, links, bytes, left_out, .. } = packed.get().cloned().unwrap_or_default();
    Content { files: Some(files), links, bytes, left_out }
}

/// The size of the files in a directory, for the progress. Concurrent changes do not matter.
fn size(directory: &Path) -> Option<u64> {
    let mut total = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.len();
            }
        }
    }
    Some(total)
}
