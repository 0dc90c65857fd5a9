//! Into a guest.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as Poller, Poll, ready};

use anyhow::{Context, Result, bail, ensure};
use metaservice::control::{Client, ClientError, Code};
use metaservice::{Destination, Form};
use metaservice_archive::Packed;
use tokio::io::{AsyncRead, ReadBuf};

use super::How;
use super::folder;
use super::place::{self, Place};
use super::told::{Content, told};
use crate::printer::Printer;
use crate::progress::Progress;

/// Copies a place here to `path` in the guest.
///
/// # Cancellation
/// Dropping the future cuts the transfer: of a file nothing is left, of a folder what came.
pub(crate) async fn send(
    client: &Client,
    from: Place,
    path: &str,
    how: How,
    printer: Printer,
) -> Result<()> {
    let from = match from {
        Place::Host(from) => from,
        _ => return send_stream(client, path, how, printer).await,
    };
    let text = from.to_string_lossy().into_owned();
    let follow = how.follows(&text);
    let inspect = if follow { std::fs::metadata } else { std::fs::symlink_metadata };
    let metadata = inspect(&from).with_context(|| format!("cannot read {text}"))?;
    let name = place::name(&text).map(str::to_owned);
    let destination = |form, mode, mtime_ns| Destination {
        path: path.to_owned(),
        name: name.clone(),
        form,
        mode,
        mtime_ns,
        set_id: how.set_id,
    };
    if metadata.is_file() {
        let file = tokio::fs::File::open(&from).await;
        let file = file.with_context(|| format!("cannot read {text}"))?;
        let mtime = metadata.mtime().checked_mul(1_000_000_000);
        let mtime = mtime.and_then(|mtime| mtime.checked_add(metadata.mtime_nsec()));
        let to = destination(Form::File, Some(metadata.mode() & how.mask()), mtime);
        let progress = printer.progress(&text, Some(metadata.len()));
        let whole = Whole::new(progress.of(file), metadata.len());
        write(client, to, whole).await?;
        told(printer, &text, path, progress, &Content::file());
        return Ok(());
    }
    if metadata.is_symlink() {
        return send_link(client, from, path, printer).await;
    }
    if !metadata.is_dir() {
        bail!("{text} is neither a file, a directory nor a link");
    }
    // What a link leads to is behind its slash.
    let from = if follow { from.join("") } else { from };
    let folder = from.clone();
    let total = tokio::task::spawn_blocking(move || size(&folder)).await?;
    let progress = printer.progress(&text, total);
    let packing = folder::pack(from, None, progress.counter())?;
    carry(client, destination(Form::Archive, None, None), packing, &text, progress, printer).await
}

/// A link as an archive of itself, which is unpacked in the directory that is to have it.
async fn send_link(client: &Client, from: PathBuf, path: &str, printer: Printer) -> Result<()> {
    let cannot = || format!("cannot copy to {path}");
    let (folder, name) = if is_folder(client, path).await.with_context(cannot)? {
        (path, None)
    } else {
        let (folder, name) = match path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(split) => split,
            None => (".", path),
        };
        ensure!(!name.is_empty(), "there is no directory {path} in the guest");
        let exists = is_folder(client, folder).await.with_context(cannot)?;
        ensure!(exists, "there is no directory {folder} in the guest");
        (folder, Some(OsString::from(name)))
    };
    let text = from.display().to_string();
    let progress = printer.progress(&text, None);
    let packing = folder::pack(from, name, progress.counter())?;
    let packed = packing.packed();
    write(client, Destination::folder(folder), packing).await?;
    told(printer, &text, path, progress, &content(&packed));
    Ok(())
}

/// Whether a path in the guest is a directory, or leads to one.
async fn is_folder(client: &Client, path: &str) -> Result<bool, ClientError> {
    match client.list(&format!("{path}/."), false).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { code: Code::NotFound, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn send_stream(client: &Client, path: &str, how: How, printer: Printer) -> Result<()> {
    let destination = Destination { set_id: how.set_id, ..Destination::folder(path) };
    let progress = printer.progress(path, None);
    write(client, destination, progress.of(tokio::io::stdin())).await?;
    told(printer, "-", path, progress, &Content::default());
    Ok(())
}

async fn carry(
    client: &Client,
    destination: Destination,
    packing: folder::Packing,
    from: &str,
    progress: Progress,
    printer: Printer,
) -> Result<()> {
    let to = destination.path.clone();
    let packed = packing.packed();
    write(client, destination, packing).await?;
    told(printer, from, &to, progress, &content(&packed));
    Ok(())
}

async fn write(
    client: &Client,
    destination: Destination,
    source: impl AsyncRead + Send + Unpin + 'static,
) -> Result<()> {
    let to = destination.path.clone();
    let written = client.write(destination, source).await;
    written.map(drop).with_context(|| format!("cannot copy to {to}"))
}

fn content(packed: &OnceLock<Packed>) -> Content {
    let Packed { files, links, left_out, .. } = packed.get().cloned().unwrap_or_default();
    Content { files: Some(files), links, left_out }
}

/// A file as long as it was when the copy began: what comes later is not of it, and one that has
/// become shorter is an error. A file that the kernel makes up says that it is empty.
struct Whole<R> {
    source: R,
    left: Option<u64>,
}

impl<R> Whole<R> {
    fn new(source: R, length: u64) -> Self {
        Self { source, left: (length > 0).then_some(length) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Whole<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.source).poll_read(cx, buf) };
        if left == 0 || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.source).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        if count == 0 {
            let message = "the file has become shorter while it was read";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
        }
        buf.advance(count);
        self.left = Some(left - count as u64);
        Poll::Ready(Ok(()))
    }
}

/// How many bytes a folder's files have: what the bar's end is. Nothing that changes meanwhile
/// matters for it.
fn size(folder: &Path) -> Option<u64> {
    let mut total = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.len();
            }
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_as_long_as_it_was_or_an_error() {
        let read = async |content: &'static [u8], length| {
            let mut all = Vec::new();
            let read = Whole::new(content, length).read_to_end(&mut all).await;
            read.map(|_| all).map_err(|error| error.kind())
        };
        assert_eq!(read(b"some", 4).await.unwrap(), b"some");
        assert_eq!(read(b"some and more", 4).await.unwrap(), b"some");
        assert_eq!(read(b"some", 5).await.unwrap_err(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"made up", 0).await.unwrap(), b"made up");
    }
}
