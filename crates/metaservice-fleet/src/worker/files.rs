//! The artifacts of an attempt on their way to the queue.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::queue::Queue;
use crate::step::Artifact;

/// The directory that the sandbox fetches an artifact to: one for each.
pub(super) fn place(directory: &Path, number: usize) -> PathBuf {
    directory.join("artifacts").join(number.to_string())
}

/// Stores what the sandbox fetched to a place.
pub(super) async fn store(
    queue: &Queue,
    directory: &Path,
    object: String,
    path: String,
) -> Result<Artifact, String> {
    let place = directory.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack(&place)).await;
    let packed = packed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let Some(Packed { file, is_directory }) = packed else {
        let error = Some("it was not fetched".to_owned());
        return Ok(Artifact { path, object: None, is_directory: false, bytes: 0, error });
    };
    let mut file = tokio::fs::File::from_std(file);
    let bytes = queue.store(&object, &mut file).await.map_err(|error| error.to_string())?;
    Ok(Artifact { path, object: Some(object), is_directory, bytes, error: None })
}

struct Packed {
    file: File,
    is_directory: bool,
}

/// One file as it is, anything else as a tar archive. `None`: nothing was fetched.
fn pack(place: &Path) -> io::Result<Option<Packed>> {
    let mut entries = match std::fs::read_dir(place) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match (entries.pop(), entries.is_empty()) {
        (None, _) => Ok(None),
        (Some(entry), true) if entry.file_type()?.is_file() => {
            Ok(Some(Packed { file: File::open(entry.path())?, is_directory: false }))
        }
        _ => Ok(Some(Packed { file: archive(place)?, is_directory: true })),
    }
}

/// A tar archive of a directory's content, in a file without a name. Links stay links.
fn archive(place: &Path) -> io::Result<File> {
    use std::io::Seek as _;
    let file = tempfile::tempfile_in(place.parent().unwrap_or(place))?;
    let mut archive = tar::Builder::new(file);
    archive.follow_symlinks(false);
    archive.append_dir_all("", place)?;
    let mut file = archive.into_inner()?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn one_file_is_itself_and_a_tree_is_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), 0);
        assert!(pack(&place).unwrap().is_none());
        std::fs::create_dir_all(&place).unwrap();
        assert!(pack(&place).unwrap().is_none());
        std::fs::write(place.join("a"), "one").unwrap();
        let mut packed = pack(&place).unwrap().unwrap();
        let mut text = String::new();
        packed.file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), packed.is_directory), ("one", false));
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
}
