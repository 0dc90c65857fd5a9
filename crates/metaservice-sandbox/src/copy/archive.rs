//! A directory as a tar archive, from and to the host's file system.
//!
//! A thread reads and writes archives with blocking calls, behind a pipe. Dropping the other end of
//! the pipe ends the thread and waits for it, before the files are removed that it may still write.
//!
//! An archive from a guest is hostile: the extractor keeps it in its directory.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use metaservice_archive::{
    ExtractCause, ExtractError, ExtractOptions, Extracted, Extractor, Packed, Packer, Skipped,
};
use tokio::io::{AsyncRead, BufReader};
use tokio::net::unix::pipe;

use super::beside::Beside;
use super::error::CopyError;
use super::how::How;
use super::place;
use crate::output::{Named, open_directory};

type Result<T> = std::result::Result<T, CopyError>;

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// A thread behind a pipe. Dropping this ends it.
struct Worker<P, T> {
    pipe: Option<P>,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<P, T: Send + 'static> Worker<P, T> {
    fn new(pipe: P, work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self { pipe: Some(pipe), thread: Some(std::thread::spawn(work)) }
    }

    /// Closes this end of the pipe, and returns the result of the thread.
    async fn finish(&mut self) -> Result<T> {
        self.pipe = None;
        let thread =
            self.thread.take().ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined.map_err(io::Error::from)?.map_err(|_| panicked())?
    }
}

impl<P, T> Drop for Worker<P, T> {
    fn drop(&mut self) {
        self.pipe = None;
        if let Some(thread) = self.thread.take() {
            // The next access to the pipe fails, so it ends at once.
            let _ = thread.join();
        }
    }
}

fn panicked() -> CopyError {
    io::Error::other("the archive's thread panicked").into()
}

/// Unpacks an archive from a guest as `target`: into an existing directory, or else beside the
/// target first.
pub(super) async fn unpack(
    body: impl AsyncRead + Unpin,
    (target, named): (&Path, Named),
    how: How,
    observe: impl Fn(u64) + Send + 'static,
) -> Result<Extracted> {
    let mut options = ExtractOptions::default();
    options.keep_set_id = how.set_id;
    options.limits.bytes = how.limit.unwrap_or(u64::MAX);
    if target.is_dir() {
        let directory = open_directory(target, named);
        let directory = directory.map_err(|cause| cannot_write(target, cause))?;
        return pump(body, Extractor::within(directory, options), observe).await;
    }
    let beside = make_beside(target, named)?;
    options.new = true;
    let counts = pump(body, Extractor::within(beside.open()?, options), observe).await?;
    // An archive without a directory is a single link, from an older agent.
    let kept = if counts.directories > 0 { beside.keep() } else { beside.keep_content() };
    kept.map_err(|cause| cannot_write(target, cause))?;
    Ok(counts)
}

/// Unpacks an archive of one link as `target`, and replaces anything but a directory.
pub(super) async fn unpack_link(
    body: impl AsyncRead + Unpin,
    (target, named): (&Path, Named),
    observe: impl Fn(u64) + Send + 'static,
) -> Result<Extracted> {
    let beside = make_beside(target, named)?;
    let extractor = Extractor::within(beside.open()?, ExtractOptions::default());
    let counts = pump(body, extractor, observe).await?;
    let alone = (counts.links, counts.files, counts.directories) == (1, 0, 0);
    if !alone {
        return Err(CopyError::NotALink);
    }
    beside.keep_content().map_err(|cause| cannot_write(target, cause))?;
    Ok(counts)
}

fn make_beside(target: &Path, named: Named) -> Result<Beside> {
    Beside::make(target, named).map_err(|cause| cannot_write(place::parent(target), cause))
}

fn cannot_write(path: &Path, cause: io::Error) -> CopyError {
    CopyError::Write { path: path.to_owned(), cause }
}

async fn pump(
    body: impl AsyncRead + Unpin,
    extractor: Extractor,
    observe: impl Fn(u64) + Send + 'static,
) -> Result<Extracted> {
    let (reader, writer) = io::pipe()?;
    let sender = pipe::Sender::from_owned_fd(OwnedFd::from(writer))?;
    let mut worker = Worker::new(sender, move || {
        // To the end, because the digest of the transfer is checked there.
        Ok(extractor.extract_observed(&reader, observe)?)
    });
    let mut body = BufReader::with_capacity(BLOCK, body);
    let pumped = match &mut worker.pipe {
        Some(sender) => tokio::io::copy_buf(&mut body, sender).await,
        None => Ok(0),
    };
    let extracted = worker.finish().await;
    match (pumped, extracted) {
        // For the thread, an archive with a broken connection is corrupt or complete.
        (Err(error), Err(given_up)) if !is_broken_pipe(&error) && breaks_off(&given_up) => {
            Err(error.into())
        }
        (Err(error), Ok(_)) => Err(error.into()),
        // The thread has failed, and has the cause.
        (_, extracted) => extracted,
    }
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Whether an archive only ends too early.
fn breaks_off(error: &CopyError) -> bool {
    let CopyError::Extract(ExtractError { cause, .. }) = error else { return false };
    match cause {
        ExtractCause::Corrupt | ExtractCause::Unended => true,
        ExtractCause::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// Packs `path` as an archive: a directory as `./` with its content, a link as itself. `name` is
/// another name for it. `observe` gets the bytes of files that were packed.
pub(super) fn pack(
    path: PathBuf,
    name: Option<OsString>,
    observe: impl Fn(u64) + Send + 'static,
) -> Result<Packing> {
    let (reader, writer) = io::pipe()?;
    let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let packed = Arc::new(OnceLock::new());
    let outcome = Arc::clone(&packed);
    let worker = Worker::new(receiver, move || {
        let packed = write_archive(writer, &path, name.as_deref(), observe)?;
        // Only this thread sets it.
        let _ = outcome.set(packed);
        Ok(())
    });
    Ok(Packing { worker, packed })
}

/// An archive while it is packed. A directory that cannot be read is an error of this reader, so
/// that an incomplete archive never counts as complete.
pub(super) struct Packing {
    worker: Worker<pipe::Receiver, ()>,
    packed: Arc<OnceLock<Packed>>,
}

impl Packing {
    /// What was packed, after all of it has been read.
    pub(super) fn packed(&self) -> Arc<OnceLock<Packed>> {
        Arc::clone(&self.packed)
    }
}

impl AsyncRead for Packing {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        use std::task::{Poll, ready};
        let worker = &mut self.worker;
        let Some(pipe) = &mut worker.pipe else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        ready!(std::pin::Pin::new(pipe).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            // The thread closes its end last.
            worker.pipe = None;
            let joined = worker.thread.take().map(JoinHandle::join);
            match joined {
                Some(Err(_)) => return Poll::Ready(Err(io::Error::other(panicked()))),
                Some(Ok(Err(error))) => return Poll::Ready(Err(io::Error::other(causes(&error)))),
                Some(Ok(Ok(()))) | None => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An error with its causes, for a reader that shows only the error itself.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn write_archive(
    mut writer: PipeWriter,
    path: &Path,
    name: Option<&OsStr>,
    observe: impl Fn(u64),
) -> Result<Packed> {
    let cannot = |path: &Path, cause| CopyError::Read { path: path.to_owned(), cause };
    let mut packer = Packer::open_as(path, name).map_err(|cause| cannot(path, cause))?;
    while let Some(block) = packer.next_block().map_err(|cause| cannot(path, cause))? {
        writer.write_all(&block.bytes)?;
        observe(packer.packed().bytes);
    }
    match packer.skipped().first() {
        None => Ok(packer.packed().clone()),
        Some(Skipped { path: below, reason, .. }) => {
            let reason = io::Error::new(reason.kind(), reason.to_string());
            Err(cannot(&path.join(below), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tokio::io::AsyncReadExt;

    use super::*;

    fn packed_of(path: PathBuf) -> Packing {
        pack(path, None, |_| {}).unwrap()
    }

    async fn unpacked(body: impl AsyncRead + Unpin, target: &Path) -> Result<Extracted> {
        unpack(body, (target, Named::ByUser), How::default(), |_| {}).await
    }

    fn plant(directory: &Path) {
        std::fs::create_dir_all(directory.join("a/locked")).unwrap();
        std::fs::write(directory.join("a/file"), "content").unwrap();
        std::fs::write(directory.join("a/locked/inner"), vec![7; 100_000]).unwrap();
        std::fs::write(directory.join("n".repeat(180)), "long").unwrap();
        std::os::unix::fs::symlink("../gone", directory.join("a/link")).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 9);
        File::options()
            .write(true)
            .open(directory.join("a/file"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        let locked = std::fs::Permissions::from_mode(0o555);
        std::fs::set_permissions(directory.join("a/locked"), locked).unwrap();
    }

    #[tokio::test]
    async fn a_directory_is_unpacked_as_it_was_packed() {
        let here = tempfile::tempdir().unwrap();
        let (from, to) = (here.path().join("from"), here.path().join("to"));
        plant(&from);
        unpacked(packed_of(from.clone()), &to).await.unwrap();
        for name in ["a/file", "a/locked/inner", &"n".repeat(180)] {
            let (one, other) = (from.join(name), to.join(name));
            assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
            let (one, other) = (one.metadata().unwrap(), other.metadata().unwrap());
            assert_eq!(
                (one.mode(), one.modified().unwrap()),
                (other.mode(), other.modified().unwrap())
            );
        }
        assert_eq!(std::fs::read_link(to.join("a/link")).unwrap(), Path::new("../gone"));
        assert_eq!(to.join("a/locked").metadata().unwrap().mode() & 0o777, 0o555);
        let link = here.path().join("alone");
        unpacked(packed_of(from.join("a/link")), &link).await.unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../gone"));
        // Again, into the existing directory.
        unpacked(packed_of(from), &to).await.unwrap();
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn a_cut_archive_leaves_nothing() {
        let here = tempfile::tempdir().unwrap();
        let (from, to) = (here.path().join("from"), here.path().join("to"));
        plant(&from);
        for cut in [0, 700, 50_000] {
            let cut = packed_of(from.clone()).take(cut).chain(Broken);
            assert!(unpacked(cut, &to).await.is_err());
            assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
        }
        let never = packed_of(from.clone()).take(50_000).chain(Silent);
        let quickly = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(quickly, unpacked(never, &to)).await.is_err());
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn bytes_after_the_end_of_an_archive_count() {
        let here = tempfile::tempdir().unwrap();
        let (from, to) = (here.path().join("from"), here.path().join("to"));
        plant(&from);
        // Other programs add padding. This is more than a pipe holds.
        let zeros = || tokio::io::repeat(0).take(200_000);
        let failed = packed_of(from.clone()).chain(zeros()).chain(Broken);
        assert!(unpacked(failed, &to).await.is_err(), "the connection broke after the end");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
        unpacked(packed_of(from).chain(zeros()), &to).await.unwrap();
    }

    #[tokio::test]
    async fn no_link_leads_out_of_a_directory_that_the_guest_writes() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().canonicalize().unwrap();
        let (from, private) = (here.join("from"), here.join("private"));
        plant(&from);
        std::fs::create_dir(&private).unwrap();
        std::os::unix::fs::symlink(&private, here.join("link")).unwrap();
        for target in ["link", "link/new"] {
            let to = (&*here.join(target), Named::InVolume);
            let body = packed_of(from.clone());
            assert!(unpack(body, to, How::default(), |_| {}).await.is_err(), "{target}");
        }
        assert_eq!(std::fs::read_dir(&private).unwrap().count(), 0);
    }

    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test]
    async fn sockets_are_left_out_and_what_cannot_be_packed_never_looks_complete() {
        let here = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(here.path().join("socket")).unwrap());
        let mut packed = Vec::new();
        packed_of(here.path().to_owned()).read_to_end(&mut packed).await.unwrap();
        assert!(!packed.is_empty());
        for nothing in ["none", "socket"] {
            let packed = packed_of(here.path().join(nothing)).read_to_end(&mut packed).await;
            assert!(packed.is_err(), "{nothing}");
        }
    }
}
