//! Fetches artifacts, and stores each under the name that the user gave.
//!
//! If an artifact cannot be fetched, its destination is left unchanged.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use metaservice::{MetaService, ReadError};

use crate::job::Artifact;
use crate::output::{Destination, Named};
use crate::progress::{Progress, ProgressError};

/// Why an artifact was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The guest has no such file, or it is not a plain file.
    #[error("the guest has no such plain file")]
    NotFound,
    /// The guest did not send it.
    #[error(transparent)]
    Fetch(ReadError),
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its destination.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It was fetched, and that cannot be persisted.
    #[error(transparent)]
    Progress(#[from] ProgressError),
}

/// Fetches one artifact, and gives its length in bytes.
///
/// Cancellation: dropping the future may leave a thread that writes the file.
pub(crate) async fn fetch(
    service: &MetaService,
    artifact: &Artifact,
    progress: &mut Progress,
) -> Result<u64, CollectError> {
    let content = match service.read(&*artifact.source).spool().await {
        Ok(content) => content,
        Err(ReadError::NotFound(_)) => return Err(CollectError::NotFound),
        Err(error) => return Err(CollectError::Fetch(error)),
    };
    let length = content.len();
    let (destination, named) = (artifact.destination.clone(), artifact.named);
    let content = content.into_std().await;
    let durable = progress.is_stored();
    let store = move || store(content, &destination, named, durable);
    let stored = tokio::task::spawn_blocking(store).await.map_err(io::Error::from);
    let cannot = |cause| CollectError::Write { path: artifact.destination.clone(), cause };
    stored.and_then(|stored| stored).map_err(cannot)?;
    progress.fetched(artifact)?;
    Ok(length)
}

fn store(mut content: File, path: &Path, named: Named, durable: bool) -> io::Result<()> {
    // The umask applies.
    let destination = Destination::open(path, named, 0o666)?;
    io::copy(&mut content, &mut destination.file())?;
    if durable { destination.keep_for_good() } else { destination.keep() }
}
