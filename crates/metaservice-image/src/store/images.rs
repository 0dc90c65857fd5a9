//! The operations of the image store.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::{StoreDirectory, StoredImage, entries, names_of};
use super::draft::{self, ImageDraft};
use super::error::{StoreError, failed};
use super::name::{self, ImageDigest, ImageName};
use crate::copy::Observer;
use crate::disk::{Disk, Format};

/// The images of a user.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(super) directory: StoreDirectory,
}

/// An image in the store that cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub struct BrokenImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Its names, sorted.
    pub names: Vec<ImageName>,
    /// What is wrong with it.
    pub why: StoreError,
}

/// The result of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The image.
    pub digest: ImageDigest,
    /// The path of its disk, if the image is gone. `None` if it has other names.
    pub disk: Option<PathBuf>,
}

impl ImageStore {
    /// The images in `$XDG_DATA_HOME/metaservice/images`, or
    /// `~/.local/share/metaservice/images`.
    ///
    /// # Errors
    /// [`StoreError::NoHome`] if neither can be found.
    pub fn of_user() -> Result<Self, StoreError> {
        Ok(Self { directory: StoreDirectory::of_user()? })
    }

    /// The images in a directory, which is created when it is needed.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { directory: StoreDirectory::at(path.into()) }
    }

    /// All images: those with names first, sorted by name. Then the broken ones, which can only be
    /// removed.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<(Vec<StoredImage>, Vec<BrokenImage>), StoreError> {
        self.directory.check()?;
        let names = self.directory.names()?;
        let digests = entries(&self.directory.path).map_err(failed(&self.directory.path))?;
        let (mut images, mut broken) = (Vec::new(), Vec::new());
        for digest in digests.into_iter().filter_map(|name| name.parse().ok()) {
            match self.directory.read(&digest, &names) {
                Ok(image) => images.push(image),
                Err(why) => {
                    broken.push(BrokenImage { names: names_of(&names, &digest), digest, why });
                }
            }
        }
        images.sort_by(|one, other| {
            let key = |image: &StoredImage| (image.names.is_empty(), image.names.first().cloned());
            key(one).cmp(&key(other)).then_with(|| one.digest.cmp(&other.digest))
        });
        Ok((images, broken))
    }

    /// The image with a name, or with a digest after `sha256:`. At least the first 8 digits of the
    /// digest are needed.
    ///
    /// # Errors
    /// If there is no such image, or the image was changed.
    pub fn find(&self, word: &str) -> Result<StoredImage, StoreError> {
        self.directory.check()?;
        let names = self.directory.names()?;
        self.directory.read(&self.digest_of(word, &names)?, &names)
    }

    fn digest_of(
        &self,
        word: &str,
        names: &BTreeMap<ImageName, ImageDigest>,
    ) -> Result<ImageDigest, StoreError> {
        let none = || StoreError::NoSuchImage(word.to_owned());
        let Some(beginning) = word.strip_prefix("sha256:") else {
            return names.get(&word.parse().map_err(|_| none())?).cloned().ok_or_else(none);
        };
        if beginning.len() < name::LEAST_DIGITS {
            return Err(none());
        }
        let all = entries(&self.directory.path).map_err(failed(&self.directory.path))?;
        let mut fitting = all.into_iter().filter(|name| name.starts_with(beginning));
        let found = fitting.next().and_then(|name| name.parse().ok()).ok_or_else(none)?;
        match fitting.next() {
            None => Ok(found),
            Some(_) => Err(StoreError::Ambiguous(word.to_owned())),
        }
    }

    /// Whether an image has this name, even if the image is broken.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        word.parse().is_ok_and(|name: ImageName| self.directory.link(&name).is_symlink())
    }

    /// Keeps a copy of a file under a name, with notes of the caller. If the store has an image
    /// with the same content, that image gets one more name. Blocks.
    ///
    /// # Errors
    /// If the file is not an image that can be kept, if another image has the name, or if there is
    /// no room. Then nothing of it is left.
    pub fn import(
        &self,
        file: &Path,
        name: &ImageName,
        notes: &Value,
        observe: Observer<'_>,
    ) -> Result<StoredImage, StoreError> {
        // This check gives an early error. The check of the copy decides.
        let format = Disk::open(file)?.format();
        if !matches!(format, Format::Raw | Format::Qcow2) {
            return Err(StoreError::Format(format));
        }
        let draft = ImageDraft::begin(&self.directory)?;
        let digest = draft.fill(file, observe)?;
        let format = Disk::open(draft.path())?.format();
        draft.settle(&digest, format, name, notes)
    }

    /// A copy of an image that a machine may write, to be kept as another image. Blocks.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn draft(
        &self,
        image: &StoredImage,
        observe: Observer<'_>,
    ) -> Result<ImageDraft, StoreError> {
        let mut draft = ImageDraft::begin(&self.directory)?;
        draft.copy(image, observe)?;
        Ok(draft)
    }

    /// Removes a name, and the image with its last name. With a digest, as [`find`](Self::find)
    /// takes it, removes the image with all its names. Machines that run from it are not affected.
    ///
    /// # Errors
    /// If there is no such image, or it cannot be removed.
    pub fn remove(&self, word: &str) -> Result<Removed, StoreError> {
        if !self.directory.path.exists() {
            return Err(StoreError::NoSuchImage(word.to_owned()));
        }
        let _changing = self.directory.lock()?;
        draft::remove_abandoned(&self.directory.path);
        let names = self.directory.names()?;
        let digest = self.digest_of(word, &names)?;
        let mut names = names_of(&names, &digest);
        if let (Ok(name), 2..) = (word.parse::<ImageName>(), names.len()) {
            names.retain(|other| *other == name);
            self.unlink(&names)?;
            return Ok(Removed { digest, disk: None });
        }
        let directory = self.directory.path_of(&digest);
        // A reader finds the whole image or none. A name leads to a missing image only between the
        // rename and the removal of its link.
        let leaving = self.directory.path.join(format!("{}{}", draft::MAKING, digest.as_str()));
        match fs::rename(&directory, &leaving) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&directory)(error));
            }
            _ => {}
        }
        self.unlink(&names)?;
        // The next maker removes what stays.
        let _ = fs::remove_dir_all(&leaving);
        Ok(Removed { digest, disk: Some(directory.join("disk")) })
    }

    fn unlink(&self, names: &[ImageName]) -> Result<(), StoreError> {
        for name in names {
            let link = self.directory.link(name);
            fs::remove_file(&link).map_err(failed(&link))?;
        }
        Ok(())
    }
}
