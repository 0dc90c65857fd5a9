//! A new image.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock, statvfs};
use serde_json::{Value, json};

use super::directory::{StoreDirectory, StoredImage, describe, entries};
use super::error::{StoreError, failed};
use super::name::{ImageDigest, ImageName};
use crate::copy::{self, Observer};
use crate::disk::{Disk, Format};

/// The prefix of the directories of new images, and of images that are being removed.
pub(super) const MAKING: &str = ".making-";

/// A copy of an image that a machine may write, to be kept as another image. Dropped, it is
/// removed.
#[derive(Debug)]
pub struct ImageDraft {
    store: StoreDirectory,
    directory: tempfile::TempDir,
    format: Format,
    /// Shows other makers that this process lives.
    _lock: File,
}

impl ImageDraft {
    /// An empty one.
    pub(super) fn begin(store: &StoreDirectory) -> Result<Self, StoreError> {
        // With the lock of the store, no other process takes the directory for abandoned before it
        // has a lock of its own.
        let _changing = store.lock()?;
        let make = || {
            remove_abandoned(&store.path);
            let directory = tempfile::Builder::new()
                .prefix(MAKING)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(&store.path)?;
            let lock = File::create(directory.path().join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok((directory, lock))
        };
        let (directory, lock) = make().map_err(|source| store.failed(source))?;
        Ok(Self { store: store.clone(), directory, format: Format::Raw, _lock: lock })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// The disk, which a machine may write.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::known(self.path(), self.format)
    }

    /// Copies a file into it, and returns the digest.
    pub(super) fn fill(
        &self,
        file: &Path,
        observe: Observer<'_>,
    ) -> Result<ImageDigest, StoreError> {
        let mut from = File::open(file).map_err(failed(file))?;
        self.check_room(&from)?;
        let to = self.create()?;
        let digest = copy::copy_digested(&mut from, &to, observe).map_err(failed(&self.path()))?;
        to.sync_all().map_err(failed(&self.path()))?;
        digest_of(&digest)
    }

    /// Copies an image into it.
    pub(super) fn copy(
        &mut self,
        image: &StoredImage,
        observe: Observer<'_>,
    ) -> Result<(), StoreError> {
        let mut from = File::open(&image.path).map_err(failed(&image.path))?;
        self.check_room(&from)?;
        let to = self.create()?;
        copy::copy(&mut from, &to, observe).map_err(failed(&self.path()))?;
        self.format = image.format;
        Ok(())
    }

    /// Keeps it under a name, with notes of the caller. No machine may write it any more. Blocks.
    ///
    /// # Errors
    /// If another image has the name, or the disk is full. Then the image is removed.
    pub fn keep(
        self,
        name: &ImageName,
        notes: &Value,
        observe: Observer<'_>,
    ) -> Result<StoredImage, StoreError> {
        let path = self.path();
        let mut digest = || {
            let mut file = File::open(&path)?;
            file.sync_all()?;
            copy::digest(&mut file, observe)
        };
        let digest = digest_of(&digest().map_err(failed(&path))?)?;
        let format = self.format;
        self.settle(&digest, format, name, notes)
    }

    /// Seals it and moves it to its place.
    pub(super) fn settle(
        self,
        digest: &ImageDigest,
        format: Format,
        name: &ImageName,
        notes: &Value,
    ) -> Result<StoredImage, StoreError> {
        let directory = self.directory.path();
        seal(directory, format, notes).map_err(failed(directory))?;
        let store = &self.store;
        // Until it is in its place, its own lock shows other makers that this process lives.
        let _changing = store.lock()?;
        match store.names()?.get(name) {
            Some(other) if other != digest => return Err(StoreError::NameTaken(name.clone())),
            _ => {}
        }
        let place = store.path_of(digest);
        let put = || {
            if store.read(digest, &BTreeMap::new()).is_err() {
                // The store may have a changed image with this digest, or a part of one.
                let _ = fs::remove_dir_all(&place);
                fs::remove_file(directory.join("lock"))?;
                File::open(directory)?.sync_all()?;
                fs::rename(directory, &place)?;
                File::open(&store.path)?.sync_all()?;
            }
            // The image is on the disk before its name is.
            let new = store.path.join("names").join(format!("{MAKING}{name}"));
            let _ = fs::remove_file(&new);
            symlink(Path::new("..").join(digest.as_str()), &new)?;
            fs::rename(&new, store.link(name))?;
            File::open(store.path.join("names"))?.sync_all()
        };
        put().map_err(failed(&place))?;
        store.read(digest, &store.names()?)
    }

    /// Creates the file of the disk, for this user alone.
    fn create(&self) -> Result<File, StoreError> {
        let path = self.path();
        let create = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        };
        create().map_err(failed(&path))
    }

    /// Gives the error for a full disk before the copy, not at its end.
    fn check_room(&self, from: &File) -> Result<(), StoreError> {
        let path = &self.store.path;
        let room = || {
            let needed = from.metadata()?.blocks() * 512;
            let found = statvfs(path)?;
            io::Result::Ok((needed, found.f_bavail.saturating_mul(found.f_frsize)))
        };
        match room().map_err(failed(path))? {
            (needed, available) if needed > available => {
                Err(StoreError::Full { path: path.clone(), needed, available })
            }
            _ => Ok(()),
        }
    }
}

/// Makes the disk read-only, and writes the manifest.
fn seal(directory: &Path, format: Format, notes: &Value) -> io::Result<()> {
    let file = File::open(directory.join("disk"))?;
    file.set_permissions(Permissions::from_mode(0o400))?;
    file.sync_all()?;
    let manifest = json!({
        "format": format.name(),
        "disk": describe(&file.metadata()?),
        "created": SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        "words": notes,
    });
    let mut file = File::create(directory.join("manifest"))?;
    file.write_all(manifest.to_string().as_bytes())?;
    file.sync_all()
}

fn digest_of(digits: &str) -> Result<ImageDigest, StoreError> {
    digits.parse().map_err(|()| StoreError::NoSuchImage(digits.to_owned()))
}

/// Removes what killed makers left, as far as possible. The caller holds the lock of the store.
pub(super) fn remove_abandoned(directory: &Path) {
    for name in entries(directory).unwrap_or_default() {
        if name.starts_with(MAKING) && !is_alive(&directory.join(&name)) {
            let _ = fs::remove_dir_all(directory.join(name));
        }
    }
    let names = directory.join("names");
    for name in entries(&names).unwrap_or_default() {
        if name.starts_with(MAKING) {
            let _ = fs::remove_file(names.join(name));
        }
    }
}

/// Whether the maker lives. If that cannot be found out, it counts as alive.
fn is_alive(place: &Path) -> bool {
    match File::open(place.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
