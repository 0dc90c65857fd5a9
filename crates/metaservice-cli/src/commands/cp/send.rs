//! Copies from the host to a guest.

use std::ffi::OsString;
use std::io::{self, Cursor};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as Poller, Poll, ready};

use anyhow::{Context, Error, Result, bail, ensure};
use metaservice::control::{Client, ClientError, Code};
use metaservice::{Destination, Form};
use metaservice_archive::Packed;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::archive;
use super::how::How;
use super::place::{self, Place};
use super::summary::{Content, told};
use crate::output::printer::{Hint, Printer};
use crate::output::progress::Progress;

/// Bytes of a header in a tar archive.
const HEADER: usize = 512;

/// The position of its checksum.
const CHECKSUM: Range<usize> = 148..156;

/// Copies a path of the host, or standard input, to `path` in the guest.
///
/// # Cancellation
/// Dropping the future ends the transfer. A file leaves nothing, and a directory keeps the complete
/// files.
pub(super) async fn send(
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
    let destination = |form, mode, mtime_ns| {
        let mut destination = Destination::file(path);
        destination.name.clone_from(&name);
        (destination.form, destination.mode) = (form, mode);
        (destination.mtime_ns, destination.set_id) = (mtime_ns, how.set_id);
        destination
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
    // With a slash at its end, a link stands for its target.
    let from = if follow { from.join("") } else { from };
    let directory = from.clone();
    let total = tokio::task::spawn_blocking(move || size(&directory)).await?;
    let progress = printer.progress(&text, total);
    let packing = archive::pack(from, None, progress.counter())?;
    carry(client, destination(Form::Archive, None, None), packing, &text, progress, printer).await
}

/// Sends a link as an archive of itself, which is unpacked in the directory of the destination.
async fn send_link(client: &Client, from: PathBuf, path: &str, printer: Printer) -> Result<()> {
    let cannot = || format!("cannot copy to {path}");
    let (directory, name) = if is_directory(client, path).await.with_context(cannot)? {
        (path, None)
    } else {
        let (directory, name) = match path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some(split) => split,
            None => (".", path),
        };
        ensure!(!name.is_empty(), "there is no directory {path} in the guest");
        let exists = is_directory(client, directory).await.with_context(cannot)?;
        ensure!(exists, "there is no directory {directory} in the guest");
        (directory, Some(OsString::from(name)))
    };
    let text = from.display().to_string();
    let progress = printer.progress(&text, None);
    let packing = archive::pack(from, name, progress.counter())?;
    let packed = packing.packed();
    write(client, Destination::directory(directory), packing).await?;
    told(printer, &text, path, progress, &content(&packed));
    Ok(())
}

/// Whether a path in the guest is a directory, or a link to one.
async fn is_directory(client: &Client, path: &str) -> Result<bool, ClientError> {
    match client.list(format!("{path}/.")).entries().await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { code: Code::NotFound, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn send_stream(client: &Client, path: &str, how: How, printer: Printer) -> Result<()> {
    let mut destination = Destination::directory(path);
    destination.set_id = how.set_id;
    let input = checked(tokio::io::stdin()).await?;
    let progress = printer.progress(path, None);
    write(client, destination, progress.of(input)).await?;
    told(printer, "-", path, progress, &Content::default());
    Ok(())
}

/// Checks that the input begins like a tar archive.
async fn checked<R: AsyncRead + Unpin>(mut input: R) -> Result<impl AsyncRead + Unpin + use<R>> {
    let mut start = Vec::with_capacity(HEADER);
    let mut first = (&mut input).take(HEADER as u64);
    first.read_to_end(&mut start).await.context("cannot read standard input")?;
    if !begins_archive(&start) {
        let hint = "for one file, write `metaservice exec -i JOB -- sh -c 'cat > FILE'`";
        let error = Error::new(Hint(hint.to_owned()));
        return Err(error.context("standard input is not a tar archive, which \"-\" stands for"));
    }
    Ok(Cursor::new(start).chain(input))
}

/// Whether these bytes begin a tar archive: no bytes, its end, or a header with a valid checksum.
fn begins_archive(start: &[u8]) -> bool {
    if start.iter().all(|byte| *byte == 0) {
        return true;
    }
    if start.len() < HEADER {
        return false;
    }
    let (before, rest) = start.split_at(CHECKSUM.start);
    let (checksum, after) = rest.split_at(CHECKSUM.len());
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The checksum itself counts as blanks.
    let expected = sum(before) + sum(&[b' '; CHECKSUM.end - CHECKSUM.start]) + sum(after);
    let text = std::str::from_utf8(checksum).unwrap_or_default();
    let digits = text.trim_matches([' ', '\0']);
    u32::from_str_radix(digits, 8) == Ok(expected)
}

async fn carry(
    client: &Client,
    destination: Destination,
    packing: archive::Packing,
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

/// A file with the length that it had when the copy began. Later bytes are not read, and a file that
/// has become shorter is an error. Files that the kernel generates have the length 0 and are read to
/// their end.
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

/// The size of the files in a directory, for the progress bar. Concurrent changes do not matter.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_archive_is_refused_before_it_is_sent() {
        let mut header = [0; HEADER];
        header[0] = b'a';
        header[CHECKSUM].copy_from_slice(b"000541\0 ");
        for good in [&header[..], &[&header[..], b"more"].concat(), &[0; 2 * HEADER], b""] {
            let mut read = Vec::new();
            checked(good).await.unwrap().read_to_end(&mut read).await.unwrap();
            assert_eq!(read, good);
        }
        let changed = [&b"b"[..], &header[1..]].concat();
        for bad in [&b"hi\n"[..], &header[..HEADER - 1], &changed, &[b'x'; HEADER]] {
            let error = format!("{:#}", checked(bad).await.err().unwrap());
            assert!(error.starts_with("standard input is not a tar archive"), "{error}");
        }
    }

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
