//! The artifacts of an attempt on their way to the queue.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use metaservice_sandbox::spec::ArtifactSpec;
use rustix::io::Errno;

use super::tidy;
use crate::step::Artifact;
use crate::store::{PutError, Store};

/// The directory that the sandbox fetches an artifact to: one for each.
pub(super) fn place(directory: &Path, number: usize) -> PathBuf {
    directory.join("artifacts").join(number.to_string())
}

/// Stores what the sandbox fetched to a place. The archive of a directory has at most so many bytes.
///
/// # Errors
/// What can be over in a moment. What the guest made so that it cannot be packed is no error: the
/// artifact says it.
pub(super) async fn store(
    store: &Store,
    directory: &Path,
    object: &str,
    wanted: &ArtifactSpec,
    max: u64,
) -> Result<Artifact, StoreError> {
    let (place, path, is_pattern) =
        (directory.to_owned(), wanted.path.clone(), wanted.is_pattern());
    let packed = tokio::task::spawn_blocking(move || pack(&place, is_pattern, max)).await;
    let missing =
        |path, error| Artifact { path, object: None, is_directory: false, error: Some(error) };
    let (file, is_directory) = match packed.map_err(io::Error::from).flatten() {
        Ok(Some(Packed { file, is_directory })) => (file, is_directory),
        Ok(None) => return Ok(missing(path, "it was not fetched".to_owned())),
        Err(error) if may_pass(&error) => return Err(StoreError::Pack(error)),
        Err(error) => return Ok(missing(path, format!("it cannot be packed: {error}"))),
    };
    let object = store.put(object, file).await?;
    Ok(Artifact { path, object: Some(object), is_directory, error: None })
}

/// Why an artifact was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("cannot read the artifact")]
    Pack(#[source] io::Error),
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Whether the error is the host's, and may be over later.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, QuotaExceeded, StorageFull};
    let has_no_descriptor =
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
    has_no_descriptor
        || matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory | Interrupted)
}

struct Packed {
    file: File,
    is_directory: bool,
}

/// One file as it is, anything else as a tar archive. What a pattern found is always an archive,
/// which has the names. `None`: nothing was fetched.
fn pack(place: &Path, is_pattern: bool, max: u64) -> io::Result<Option<Packed>> {
    tidy::open_up(place);
    let mut entries = match std::fs::read_dir(place) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match (entries.pop(), entries.is_empty()) {
        (None, _) => Ok(None),
        (Some(entry), true) if entry.file_type()?.is_file() && !is_pattern => {
            Ok(Some(Packed { file: File::open(entry.path())?, is_directory: false }))
        }
        _ => Ok(Some(Packed { file: archive(place, max)?, is_directory: true })),
    }
}

/// A tar archive of a directory's content, in a file without a name. Links stay links, but each hard
/// link is a file of its own, so that a small tree can have a large archive.
fn archive(place: &Path, max: u64) -> io::Result<File> {
    use std::io::Seek as _;
    let file = tempfile::tempfile_in(place.parent().unwrap_or(place))?;
    let mut archive = tar::Builder::new(Limited { file, left: max });
    archive.follow_symlinks(false);
    // Clients extract plain members only: what else there is comes from no worker.
    archive.sparse(false);
    archive.append_dir_all("", place)?;
    let mut file = archive.into_inner()?.file;
    file.rewind()?;
    Ok(file)
}

/// A file that takes only so many bytes more.
struct Limited {
    file: File,
    left: u64,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "its archive is too large"));
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn one_file_is_itself_and_a_tree_is_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), 0);
        let pack = |place: &Path| pack(place, false, 1 << 20);
        assert!(pack(&place).unwrap().is_none());
        std::fs::create_dir_all(&place).unwrap();
        assert!(pack(&place).unwrap().is_none());
        std::fs::write(place.join("a"), "one").unwrap();
        let mut packed = pack(&place).unwrap().unwrap();
        let mut text = String::new();
        packed.file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), packed.is_directory), ("one", false));
        assert!(super::pack(&place, true, 1 << 20).unwrap().unwrap().is_directory);
        std::os::unix::fs::symlink("/etc/passwd", place.join("link")).unwrap();
        let packed = pack(&place).unwrap().unwrap();
        assert!(packed.is_directory);
        let mut archive = tar::Archive::new(packed.file);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            found.push((header.entry_type(), header.size().unwrap()));
        }
        assert!(found.contains(&(tar::EntryType::Symlink, 0)), "{found:?}");
        assert!(found.contains(&(tar::EntryType::Regular, 3)), "{found:?}");
    }

    #[test]
    fn hard_links_do_not_make_an_archive_larger_than_it_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), 0);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("file"), vec![0; 100_000]).unwrap();
        for number in 0..20 {
            std::fs::hard_link(place.join("file"), place.join(number.to_string())).unwrap();
        }
        let error = pack(&place, false, 1_000_000).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(!may_pass(&error) && pack(&place, false, 3_000_000).unwrap().is_some());
        assert!(may_pass(&io::Error::from(io::ErrorKind::StorageFull)));
    }

    #[tokio::test]
    async fn a_tree_that_cannot_be_packed_is_an_artifact_with_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), 0);
        std::fs::create_dir_all(&place).unwrap();
        // Longer than a path may be: the guest made it step by step.
        let name = "n".repeat(224);
        let mut at =
            rustix::fs::open(&place, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&at, &name, 0o700.into()).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, &name, flags, rustix::fs::Mode::empty()).unwrap();
        }
        let url = format!("file://{}", directory.path().join("store").display());
        let kept = Store::open(&url).unwrap();
        let stored =
            store(&kept, &place, "a.1.0", &"/out".parse().unwrap(), 1 << 20).await.unwrap();
        assert!(stored.object.is_none(), "{stored:?}");
        assert!(stored.error.unwrap().starts_with("it cannot be packed: "));
        tidy::remove(&place).unwrap();
    }
}
