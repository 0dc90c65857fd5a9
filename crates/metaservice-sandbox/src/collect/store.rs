//! One artifact, from the guest to its destination.

use std::fs::File;
use std::io;
use std::path::Path;

use metaservice::{FailureCode, MetaService, ReadError};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use super::error::CollectError;
use crate::copy::{CopyError, How, Observer, Opened, place};
use crate::job::Artifact;
use crate::output::{Destination, Named, open_parent};

/// Fetches a file or a directory of at most `limit` bytes, and returns its length. With `durable`,
/// it survives a loss of power.
///
/// Cancellation: dropping the future may leave a thread that writes the file.
pub(super) async fn fetch(
    service: &MetaService,
    artifact: &Artifact,
    limit: u64,
    durable: bool,
) -> Result<u64, CollectError> {
    // A file is stored here before its destination is touched.
    let content = match service.read(&*artifact.source).spool().await {
        Ok(content) => content,
        Err(ReadError::NotFound(failure)) if failure.code == FailureCode::NotAFile => {
            return fetch_directory(service, artifact, limit, durable).await;
        }
        Err(ReadError::NotFound(_)) => return Err(CollectError::NotFound),
        Err(error) => return Err(CollectError::Fetch(error)),
    };
    let length = content.len();
    if length > limit {
        return Err(CollectError::TooLarge(limit));
    }
    make_directory(artifact)?;
    let (destination, named) = (artifact.destination.clone(), artifact.named);
    let content = content.into_std().await;
    let store = move || store(content, &destination, named, durable);
    let stored = tokio::task::spawn_blocking(store).await.map_err(io::Error::from);
    stored.and_then(|stored| stored).map_err(|cause| cannot_write(artifact, cause))?;
    Ok(length)
}

/// The directory of a match may not exist yet.
fn make_directory(artifact: &Artifact) -> Result<(), CollectError> {
    let parent = place::parent(&artifact.destination);
    let Some(name) = parent.file_name().filter(|_| !parent.is_dir()) else { return Ok(()) };
    let made = open_parent(parent, artifact.named).and_then(|above| {
        match mkdirat(above, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            // The artifact itself has the telling error.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    });
    made.map_err(|cause| cannot_write(artifact, cause))
}

async fn fetch_directory(
    service: &MetaService,
    artifact: &Artifact,
    limit: u64,
    durable: bool,
) -> Result<u64, CollectError> {
    let mut how = How { follow: true, ..How::default() };
    how.limit = Some(limit);
    let opened = Opened::open(service, &artifact.source, how).await.map_err(not_found)?;
    if !opened.is_directory() {
        // A device, a FIFO or a socket.
        return Err(CollectError::NotFound);
    }
    make_directory(artifact)?;
    let target = &artifact.destination;
    let stored = opened.store(target, artifact.named, how, &Observer::default()).await;
    let content = stored.map_err(CollectError::Copy)?;
    if durable {
        let target = target.clone();
        let sync = move || Ok(rustix::fs::syncfs(File::open(target)?)?);
        let synced = tokio::task::spawn_blocking(sync).await.map_err(io::Error::from);
        synced.and_then(|synced| synced).map_err(|cause| cannot_write(artifact, cause))?;
    }
    Ok(content.bytes)
}

fn not_found(error: CopyError) -> CollectError {
    match error {
        CopyError::FromGuest(ReadError::NotFound(_)) => CollectError::NotFound,
        error => CollectError::Copy(error),
    }
}

fn cannot_write(artifact: &Artifact, cause: io::Error) -> CollectError {
    CollectError::Write { path: artifact.destination.clone(), cause }
}

fn store(mut content: File, path: &Path, named: Named, durable: bool) -> io::Result<()> {
    // The umask applies.
    let destination = Destination::open(path, named, 0o666)?;
    io::copy(&mut content, &mut destination.file())?;
    if durable { destination.keep_for_good() } else { destination.keep() }
}
