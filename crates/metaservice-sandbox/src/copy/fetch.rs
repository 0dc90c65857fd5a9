//! Copies from a guest to the host.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use metaservice::{FileHead, Form};
use metaservice_archive::{Extracted, SparseWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::content::Content;
use super::error::CopyError;
use super::guest::{Body, Guest};
use super::how::How;
use super::observer::{Observer, Step};
use super::{archive, place};
use crate::output::{Destination, Named};

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// What was fetched, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// The path on the host.
    pub target: PathBuf,
    /// What is there.
    pub content: Content,
}

/// Copies `path` in the guest to a path of the host.
///
/// # Errors
/// [`CopyError`]. Then nothing of the copy is left, except in a directory that existed before.
///
/// # Cancellation
/// As an error.
pub async fn fetch(
    guest: &impl Guest,
    path: &str,
    to: &Path,
    how: How,
    observer: &Observer,
) -> Result<Fetched, CopyError> {
    let opened = Opened::open(guest, path, how).await?;
    let (target, named) = place::target(to, place::name(path), opened.is_directory())?;
    let content = opened.store(&target, named, how, observer).await?;
    Ok(Fetched { target, content })
}

/// A file, a directory or a link of the guest that is being read. Dropping it ends the transfer.
pub struct Opened {
    /// `None`: a file of an agent of version 1, which sends no attributes.
    head: Option<FileHead>,
    body: Body,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Opened {
    /// Begins to read `path`.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn open(guest: &impl Guest, path: &str, how: How) -> Result<Self, CopyError> {
        let (head, body) = guest.open(path, how.follows(path)).await?;
        Ok(Self { head, body })
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.head.is_some_and(|head| head.form == Form::Archive && !head.link)
    }

    /// Writes it to `target`, and checks that place first.
    ///
    /// # Errors
    /// [`CopyError`]. Then nothing of the copy is left, except in a directory that existed before.
    pub async fn store(
        self,
        target: &Path,
        named: Named,
        how: How,
        observer: &Observer,
    ) -> Result<Content, CopyError> {
        place::check(target, named, self.is_directory())?;
        let Self { head, body } = self;
        let Some(head) = head else { return store_plain(body, target, named, observer).await };
        observer.observe(Step::Total(head.size));
        if head.form == Form::File {
            let bytes = store(observer.of(body), target, named, (head, how)).await?;
            return Ok(Content::file(bytes));
        }
        let counts = match head.link {
            true => archive::unpack_link(body, (target, named), observer.counter()).await?,
            false => archive::unpack(body, (target, named), how, observer.counter()).await?,
        };
        let Extracted { files, links, bytes, left_out, .. } = counts;
        Ok(Content { files: Some(files), links, bytes, left_out })
    }
}

/// Stores a file of a version 1 agent.
async fn store_plain(
    body: Body,
    target: &Path,
    named: Named,
    observer: &Observer,
) -> Result<Content, CopyError> {
    let cannot = |cause| CopyError::Write { path: target.to_owned(), cause };
    let place = open(target, named, 0o666).await?;
    let mut file = tokio::fs::File::from_std(place.file().try_clone().map_err(cannot)?);
    let bytes = tokio::io::copy(&mut observer.of(body), &mut file).await?;
    file.flush().await.map_err(cannot)?;
    place.keep().map_err(cannot)?;
    Ok(Content::file(bytes))
}

/// Stores a file with its attributes, and returns its length.
async fn store(
    body: impl AsyncRead + Unpin,
    target: &Path,
    named: Named,
    (head, how): (FileHead, How),
) -> Result<u64, CopyError> {
    let cannot = |cause| CopyError::Write { path: target.to_owned(), cause };
    let place = open(target, named, 0o600).await?;
    let file = place.file().try_clone().map_err(cannot)?;
    if !place.is_file() {
        let mut stream = tokio::fs::File::from_std(file);
        let mut body = BufReader::with_capacity(BLOCK, body);
        let bytes = tokio::io::copy_buf(&mut body, &mut stream).await?;
        stream.flush().await.map_err(cannot)?;
        place.keep().map_err(cannot)?;
        return Ok(bytes);
    }
    let file = fill(body, file).await?;
    let attributes = || {
        file.set_permissions(std::fs::Permissions::from_mode(head.mode & how.mask()))?;
        if let Some(modified) = time(head.mtime_ns) {
            file.set_modified(modified)?;
        }
        file.metadata()
    };
    let length = attributes().map_err(cannot)?.len();
    place.keep().map_err(cannot)?;
    Ok(length)
}

/// Writes a file, with holes for blocks of zeros.
async fn fill(mut body: impl AsyncRead + Unpin, file: File) -> io::Result<File> {
    let mut writer = SparseWriter::default();
    let mut state = (file, Vec::with_capacity(BLOCK));
    loop {
        let (file, mut block) = state;
        block.clear();
        // Only full blocks of zeros become holes.
        (&mut body).take(BLOCK as u64).read_to_end(&mut block).await?;
        if block.is_empty() {
            writer.finish(&file)?;
            return Ok(file);
        }
        state = tokio::task::spawn_blocking(move || {
            let written = writer.write(&file, &block);
            written.map(|()| ((file, block), writer))
        })
        .await?
        .map(|(state, written)| {
            writer = written;
            state
        })?;
    }
}

async fn open(target: &Path, named: Named, mode: u32) -> Result<Destination, CopyError> {
    let opened = Destination::open_async(target.to_owned(), named, mode).await;
    opened.map_err(|cause| CopyError::Write { path: target.to_owned(), cause })
}

/// The time of a file as the guest states it, or `None` if the host cannot express it.
fn time(mtime_ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    if mtime_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}
