//! An image that is being made.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock, statvfs};
use serde_json::{Value, json};

use super::{
    ImageDigest, ImageName, ImageStore, Observer, StoreError, StoredImage, entries, failed,
};
use crate::copy;
use crate::disk::{Disk, Format};

/// The beginning of the names of folders that are being made, or removed.
pub(super) const MAKING: &str = ".making-";

/// A copy of an image that a machine may write, to be kept as another image. Dropped, it is gone.
#[derive(Debug)]
pub struct ImageDraft {
    store: ImageStore,
    folder: tempfile::TempDir,
    format: Format,
    /// Tells other makers that we live.
    _lock: File,
}

impl ImageDraft {
    /// An empty one.
    pub(super) fn begin(store: &ImageStore) -> Result<Self, StoreError> {
        // Between the making of a folder and its lock nobody shall take it for an abandoned one.
        let _changing = store.lock()?;
        let make = || {
            remove_abandoned(&store.folder);
            let private = Permissions::from_mode(0o700);
            let folder = tempfile::Builder::new()
                .prefix(MAKING)
                .permissions(private)
                .tempdir_in(&store.folder)?;
            let lock = File::create(folder.path().join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok((folder, lock))
        };
        let (folder, lock) = make().map_err(|source| store.failed(source))?;
        Ok(Self { store: store.clone(), folder, format: Format::Raw, _lock: lock })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// The disk, which a machine may write.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::known(self.path(), self.format)
    }

    /// Fills it with the bytes of a file; their digest.
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

    /// Fills it with the bytes of an image.
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

    /// Keeps it as it is now under a name. No machine may write it any longer. Blocks.
    ///
    /// # Errors
    /// When the name is another image's, or the disk is full. Nothing of it is left then.
    pub fn keep(
        self,
        name: &ImageName,
        words: &Value,
        observe: Observer<'_>,
    ) -> Result<StoredImage, StoreError> {
        let path = self.path();
        let mut digested = || {
            let mut file = File::open(&path)?;
            file.sync_all()?;
            copy::digest(&mut file, observe)
        };
        let digest = digest_of(&digested().map_err(failed(&path))?)?;
        let format = self.format;
        self.settle(&digest, format, name, words)
    }

    /// Moves what is whole to its place.
    pub(super) fn settle(
        self,
        digest: &ImageDigest,
        format: Format,
        name: &ImageName,
        words: &Value,
    ) -> Result<StoredImage, StoreError> {
        let folder = self.folder.path();
        let seal = || {
            let file = File::open(self.path())?;
            file.set_permissions(Permissions::from_mode(0o400))?;
            file.sync_all()?;
            let manifest = json!({
                "format": format.name(),
                "disk": description(&file.metadata()?),
                "created": SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
                "words": words,
            });
            let mut file = File::create(folder.join("manifest"))?;
            file.write_all(manifest.to_string().as_bytes())?;
            file.sync_all()
        };
        seal().map_err(failed(folder))?;
        let store = &self.store;
        // Until it is in its place our own lock tells other makers that we live.
        let _changing = store.lock()?;
        match store.names()?.get(name) {
            Some(other) if other != digest => return Err(StoreError::NameTaken(name.clone())),
            _ => {}
        }
        let place = store.place(digest);
        let put = || {
            if store.read(digest, &BTreeMap::new()).is_err() {
                // One that was changed, or half of one.
                let _ = fs::remove_dir_all(&place);
                fs::remove_file(folder.join("lock"))?;
                File::open(folder)?.sync_all()?;
                fs::rename(folder, &place)?;
                File::open(&store.folder)?.sync_all()?;
            }
            // A name leads to what is there for good, never the other way round.
            let new = store.folder.join("names").join(format!("{MAKING}{name}"));
            let _ = fs::remove_file(&new);
            symlink(Path::new("..").join(digest.as_str()), &new)?;
            fs::rename(&new, store.link(name))?;
            File::open(store.folder.join("names"))?.sync_all()
        };
        put().map_err(failed(&place))?;
        store.read(digest, &store.names()?)
    }

    /// A file for the disk, of this user's alone.
    fn create(&self) -> Result<File, StoreError> {
        let path = self.path();
        let create = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        };
        create().map_err(failed(&path))
    }

    /// Says early what would be said late.
    fn check_room(&self, from: &File) -> Result<(), StoreError> {
        let path = &self.store.folder;
        let room = || {
            let needed = from.metadata()?.blocks() * 512;
            let there = statvfs(path)?;
            io::Result::Ok((needed, there.f_bavail.saturating_mul(there.f_frsize)))
        };
        match room().map_err(failed(path))? {
            (needed, available) if needed > available => {
                Err(StoreError::Full { path: path.clone(), needed, available })
            }
            _ => Ok(()),
        }
    }
}

/// By what a disk is known to be the same, without reading all of it.
pub(super) fn description(metadata: &fs::Metadata) -> Value {
    json!([metadata.size(), metadata.mtime(), metadata.mtime_nsec()])
}

fn digest_of(digits: &str) -> Result<ImageDigest, StoreError> {
    digits.parse().map_err(|()| StoreError::NoSuchImage(digits.to_owned()))
}

/// Removes what makers have left that are no more; the caller holds the lock of the store. What
/// cannot be removed stays.
pub(super) fn remove_abandoned(folder: &Path) {
    for name in entries(folder).unwrap_or_default() {
        if name.starts_with(MAKING) && !is_alive(&folder.join(&name)) {
            let _ = fs::remove_dir_all(folder.join(name));
        }
    }
    let names = folder.join("names");
    for name in entries(&names).unwrap_or_default() {
        if name.starts_with(MAKING) {
            let _ = fs::remove_file(names.join(name));
        }
    }
}

/// Whether somebody makes it now. What cannot be told counts as alive.
fn is_alive(place: &Path) -> bool {
    match File::open(place.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
