//! A folder as a tar archive, from and to our file system.
//!
//! Archives are read and written by a thread with the blocking calls that they are made of,
//! behind a pipe: whoever drops the other end ends the thread, and waits for that before anything
//! is removed that it may still write to.
//!
//! What comes out of a guest is hostile. No member leaves the folder that it is unpacked to, be
//! it by `..`, an absolute name or a link; there are no devices, owners or set-user-id bits.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

use super::place;

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// The most folders that an archive may have: they are kept until its end.
const MAX_FOLDERS: usize = 1_000_000;

/// A thread behind a pipe; dropping this ends it.
struct Worker<P, T> {
    pipe: Option<P>,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<P, T: Send + 'static> Worker<P, T> {
    fn new(pipe: P, work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self { pipe: Some(pipe), thread: Some(std::thread::spawn(work)) }
    }

    /// What came of it; our end of the pipe is closed.
    async fn finish(&mut self) -> Result<T> {
        self.pipe = None;
        let thread = self.thread.take().context("finished before")?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow!("the archive's thread panicked"))?
    }
}

impl<P, T> Drop for Worker<P, T> {
    fn drop(&mut self) {
        self.pipe = None;
        if let Some(thread) = self.thread.take() {
            // It ends at the next byte that it wants: at once.
            let _ = thread.join();
        }
    }
}

/// Unpacks an archive from a guest as `target`: beside it first if nothing is there, else into
/// the folder that is there.
pub(super) async fn unpack(body: impl AsyncRead + Unpin, target: &Path) -> Result<()> {
    if target.is_dir() {
        let unpacked = pump(body, target.to_owned()).await?;
        return match unpacked {
            Unpacked::Folder => Ok(()),
            Unpacked::Single(_) => Ok(()),
        };
    }
    let folder = place::parent(target);
    let temporary = tempfile::Builder::new().prefix(".metaservice-").tempdir_in(folder);
    let temporary = temporary.with_context(|| format!("cannot write to {}", folder.display()))?;
    let within = temporary.path().join("content");
    std::fs::create_dir(&within)?;
    match pump(body, within.clone()).await? {
        Unpacked::Folder => std::fs::rename(&within, target)?,
        Unpacked::Single(name) => std::fs::rename(within.join(name), target)?,
    }
    Ok(())
}

/// What an archive was.
enum Unpacked {
    /// A folder and what is in it.
    Folder,
    /// One thing of this name: no folder.
    Single(PathBuf),
}

async fn pump(body: impl AsyncRead + Unpin, folder: PathBuf) -> Result<Unpacked> {
    let (reader, writer) = io::pipe()?;
    let sender = pipe::Sender::from_owned_fd(OwnedFd::from(writer))?;
    let mut worker = Worker::new(sender, move || extract(reader, &folder));
    let mut body = BufReader::with_capacity(BLOCK, body);
    let pumped = match &mut worker.pipe {
        Some(sender) => match tokio::io::copy_buf(&mut body, sender).await {
            Ok(_) => sender.shutdown().await,
            Err(error) => Err(error),
        },
        None => Ok(()),
    };
    let extracted = worker.finish().await;
    match pumped {
        // The thread has given up, and says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => extracted,
        // A cut archive may look complete.
        Err(error) => Err(error.into()),
        Ok(()) => extracted,
    }
}

fn extract(reader: PipeReader, folder: &Path) -> Result<Unpacked> {
    let mut archive = Archive::new(reader);
    archive.set_preserve_mtime(false);
    let mut folders = Vec::new();
    let mut first = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let shown = name.display().to_string();
        if first.is_none() {
            first = Some((name.clone(), entry.header().entry_type()));
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                if folders.len() == MAX_FOLDERS {
                    bail!("the archive has more than {MAX_FOLDERS} folders");
                }
                folders.push(entry);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::Symlink | EntryType::Link => {
                place_in(&mut entry, folder).with_context(|| format!("cannot unpack {shown:?}"))?;
            }
            kind => bail!("{shown:?} is neither file, folder nor link ({kind:?})"),
        }
    }
    // A folder that may not be written to is made so when all is in it; the deepest first.
    folders.sort_by_cached_key(|entry| std::cmp::Reverse(entry.path_bytes().into_owned()));
    for mut entry in folders {
        place_in(&mut entry, folder)?;
    }
    let Some((name, kind)) = first else { bail!("the archive is empty") };
    let single = kind != EntryType::Directory && name.components().count() == 1;
    Ok(if single { Unpacked::Single(name) } else { Unpacked::Folder })
}

/// Unpacks one member, if it stays in `folder`, with its own time.
fn place_in<R: io::Read>(entry: &mut Entry<'_, R>, folder: &Path) -> Result<()> {
    let name = entry.path()?.into_owned();
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !name.components().all(plain) {
        bail!("its name leads out of the folder");
    }
    let time = modified(entry)?;
    if entry.header().entry_type() == EntryType::Directory && name.components().all(|c| c == Component::CurDir) {
        // The folder itself, which is there.
        if let Ok(mode) = entry.header().mode() {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode & 0o777))?;
        }
    } else if !entry.unpack_in(folder)? {
        bail!("it leads out of the folder");
    }
    if entry.header().entry_type() != EntryType::Link {
        let times = Timestamps { last_access: time, last_modification: time };
        let path = folder.join(name);
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A member's time, to the nanosecond where the archive tells it.
fn modified<R: io::Read>(entry: &mut Entry<'_, R>) -> Result<Timespec> {
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or_default();
    let mut time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(time) };
    for extension in extensions {
        let extension = extension?;
        if extension.key_bytes() == b"mtime"
            && let Some(exact) = extension.value().ok().and_then(parse_time)
        {
            time = exact;
        }
    }
    Ok(time)
}

/// Reads `1714564800.25` of a pax header.
fn parse_time(text: &str) -> Option<Timespec> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let whole: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    let (tv_sec, tv_nsec) = match (negative, nanoseconds) {
        (true, 1..) => (whole.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (whole, nanoseconds),
    };
    Some(Timespec { tv_sec, tv_nsec })
}

/// What is at `path` here as an archive: a folder as `./` and what is in it, a link as itself.
pub(super) fn pack(path: PathBuf) -> Result<Packing> {
    let (reader, writer) = io::pipe()?;
    let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    Ok(Packing(Worker::new(receiver, move || write_archive(writer, &path))))
}

/// An archive while it is made. A folder that cannot be read is an error of the reading, so
/// that what was sent of it never counts as complete.
pub(super) struct Packing(Worker<pipe::Receiver, ()>);

impl AsyncRead for Packing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        use std::task::{Poll, ready};
        let worker = &mut self.0;
        let Some(pipe) = &mut worker.pipe else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        ready!(std::pin::Pin::new(pipe).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            // The thread has closed its end as its last act.
            worker.pipe = None;
            let joined = worker.thread.take().map(JoinHandle::join);
            if let Some(Err(_) | Ok(Err(_))) = joined {
                let error = joined.and_then(Result::ok).and_then(Result::err);
                let error = error.unwrap_or_else(|| anyhow!("the archive's thread panicked"));
                return Poll::Ready(Err(io::Error::other(format!("{error:#}"))));
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn write_archive(writer: PipeWriter, path: &Path) -> Result<()> {
    let mut builder = Builder::new(io::BufWriter::with_capacity(BLOCK, writer));
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        append(&mut builder, path, Path::new("./"))?;
    } else {
        let name = path.file_name().context("it has no name")?;
        append(&mut builder, path, Path::new(name))?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn append(builder: &mut Builder<impl Write>, path: &Path, name: &Path) -> Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let metadata = std::fs::symlink_metadata(path).with_context(cannot)?;
    let mut header = Header::new_ustar();
    header.set_metadata(&metadata);
    let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
    if metadata.mtime() >= 0 {
        builder.append_pax_extensions([("mtime", time.as_bytes())])?;
    }
    if metadata.is_dir() {
        builder.append_data(&mut header, name, io::empty())?;
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(path).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            names.insert(entry.file_name(), entry.path());
        }
        for (below, path) in names {
            append(builder, &path, &name.join::<&OsStr>(&below))?;
        }
    } else if metadata.is_symlink() {
        let to = std::fs::read_link(path).with_context(cannot)?;
        header.set_size(0);
        builder.append_link(&mut header, name, to)?;
    } else if metadata.is_file() {
        let file = File::open(path).with_context(cannot)?;
        // A file that shrinks meanwhile would leave the archive without its order.
        let size = metadata.len();
        builder.append_data(&mut header, name, Exactly { file, left: size })?;
    } else {
        bail!("{} is neither file, folder nor link", path.display());
    }
    Ok(())
}

/// So many bytes of a file, and an error where it has fewer.
struct Exactly {
    file: File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("it has shrunk while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
