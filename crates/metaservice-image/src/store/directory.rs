//! The directory of the image store: paths, the lock, names and manifests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use metaservice_private::{Directory, Location};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::error::{StoreError, failed};
use super::name::{ImageDigest, ImageName};
use crate::disk::{Disk, Format};

/// The largest manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Its names, sorted.
    pub names: Vec<ImageName>,
    /// Its format.
    pub format: Format,
    /// The bytes that it takes on the host's disk.
    pub occupied: u64,
    /// The time of its import, with a resolution of a second.
    pub created: SystemTime,
    /// The notes of the caller who imported it.
    pub notes: Value,
    pub(super) path: PathBuf,
}

impl StoredImage {
    /// The disk, for a machine.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::known(self.path.clone(), self.format)
    }
}

/// The directory of a store.
#[derive(Debug, Clone)]
pub(super) struct StoreDirectory {
    location: Location,
    pub(super) path: PathBuf,
}

impl StoreDirectory {
    pub(super) fn of_user() -> Result<Self, StoreError> {
        let location = Location::Data("images");
        let path = location.path().ok_or(StoreError::NoHome)?;
        Ok(Self { location, path })
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self { location: Location::At(path.clone()), path }
    }

    /// Takes the lock for changes of names and digests, and creates the directory if necessary.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let directory = self.location.open()?;
        Directory::within(&self.path, &["names"])?;
        let lock = directory.append("lock")?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| self.failed(errno.into()))?;
        Ok(lock)
    }

    /// Checks that no other user can change the directory. Does not create it.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.path.symlink_metadata().is_ok() {
            self.location.open()?;
        }
        Ok(())
    }

    /// The image with a digest.
    pub(super) fn read(
        &self,
        digest: &ImageDigest,
        names: &BTreeMap<ImageName, ImageDigest>,
    ) -> Result<StoredImage, StoreError> {
        let directory = self.path_of(digest);
        let path = directory.join("disk");
        let manifest = manifest(&directory).map_err(failed(&directory))?;
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        let format = match manifest["format"].as_str() {
            Some("raw") => Format::Raw,
            Some("qcow2") => Format::Qcow2,
            _ => return Err(StoreError::Changed(digest.clone())),
        };
        if describe(&metadata) != manifest["disk"] {
            return Err(StoreError::Changed(digest.clone()));
        }
        let created = Duration::from_secs(manifest["created"].as_u64().unwrap_or_default());
        Ok(StoredImage {
            digest: digest.clone(),
            names: names_of(names, digest),
            format,
            occupied: metadata.blocks() * 512,
            created: SystemTime::UNIX_EPOCH + created,
            notes: manifest["words"].clone(),
            path,
        })
    }

    /// The digest of each name.
    pub(super) fn names(&self) -> Result<BTreeMap<ImageName, ImageDigest>, StoreError> {
        let directory = self.path.join("names");
        let names = entries(&directory).map_err(failed(&directory))?;
        let resolve = |name: String| {
            let name: ImageName = name.parse().ok()?;
            let target = fs::read_link(self.link(&name)).ok()?;
            Some((name, target.file_name()?.to_str()?.parse().ok()?))
        };
        Ok(names.into_iter().filter_map(resolve).collect())
    }

    /// The link of a name.
    pub(super) fn link(&self, name: &ImageName) -> PathBuf {
        self.path.join("names").join(name.as_str())
    }

    /// The directory of an image.
    pub(super) fn path_of(&self, digest: &ImageDigest) -> PathBuf {
        self.path.join(digest.as_str())
    }

    pub(super) fn failed(&self, source: io::Error) -> StoreError {
        failed(&self.path)(source)
    }
}

/// The names of an image.
pub(super) fn names_of(
    names: &BTreeMap<ImageName, ImageDigest>,
    digest: &ImageDigest,
) -> Vec<ImageName> {
    let of_image = names.iter().filter(|(_, other)| *other == digest);
    of_image.map(|(name, _)| name.clone()).collect()
}

/// The attributes by which a change of a disk is noticed, without reading it.
pub(super) fn describe(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.mtime(), metadata.mtime_nsec()])
}

/// The names of the files in a directory. Empty if there is no directory.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    let names: io::Result<Vec<_>> = entries.map(name).collect();
    Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn manifest(directory: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    File::open(directory.join("manifest"))?.take(MAX_MANIFEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
