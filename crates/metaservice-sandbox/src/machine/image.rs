//! The image that a machine boots: an image of the store, or a file.

use std::path::{Path, PathBuf};

use metaservice_image::{Disk, DiskError, ImageStore, StoreError, StoredImage};
use serde_json::{Value, json};

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The disk.
    pub disk: Disk,
    /// The image of the store, if it is one.
    pub stored: Option<StoredImage>,
}

/// What was done to an image before it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The name of the image that it was made of.
    pub from: String,
}

/// Why there is no image of a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The store has none, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is no disk image, or cannot be read.
    #[error(transparent)]
    Disk(DiskError),
    /// There is neither an image nor a file of this name.
    #[error("there is neither an image nor a file {}", name.display())]
    NotFound {
        /// The name.
        name: PathBuf,
        /// What opening it as a file says.
        #[source]
        cause: DiskError,
    },
}

impl Image {
    /// Finds an image. A name or digest that the store has is that image's; anything else is a
    /// file. Blocks.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn find(word: &Path) -> Result<Self, ImageError> {
        let text = word.to_str().unwrap_or_default();
        if is_name(text) {
            return Ok(Self::stored(&ImageStore::of_user()?, text)?);
        }
        match Disk::open(word) {
            Ok(disk) => Ok(Self { disk, stored: None }),
            Err(cause) if !text.contains('/') && !word.exists() => {
                Err(ImageError::NotFound { name: word.to_owned(), cause })
            }
            Err(error) => Err(ImageError::Disk(error)),
        }
    }

    /// The image of the store with this name or digest. Blocks.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn stored(store: &ImageStore, word: &str) -> Result<Self, StoreError> {
        let stored = store.find(word)?;
        Ok(Self { disk: stored.disk(), stored: Some(stored) })
    }

    /// What was done to it before it was stored, if anything was.
    #[must_use]
    pub fn prepared(&self) -> Option<Prepared> {
        Prepared::read(&self.stored.as_ref()?.notes)
    }
}

/// Whether a word is the name or the digest of an image of the store, and not a file. Blocks.
#[must_use]
pub fn is_name(word: &str) -> bool {
    word.starts_with("sha256:") || ImageStore::of_user().is_ok_and(|store| store.has(word))
}

impl Prepared {
    /// As notes that the store keeps with an image.
    #[must_use]
    pub fn write(&self) -> Value {
        json!({ "prepared": { "from": self.from } })
    }

    /// Reads the notes that the store keeps with an image. `None`: the image is as it was imported.
    #[must_use]
    pub fn read(notes: &Value) -> Option<Self> {
        let prepared = notes.get("prepared")?;
        Some(Self { from: prepared.get("from")?.as_str()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_read_as_it_was_written() {
        let prepared = Prepared { from: "debian".into() };
        assert_eq!(Prepared::read(&prepared.write()), Some(prepared));
        for other in [json!(null), json!({ "source": "a" }), json!({ "prepared": {} })] {
            assert_eq!(Prepared::read(&other), None, "{other}");
        }
    }

    #[test]
    fn a_name_without_an_image_or_a_file_is_told_from_a_broken_file() {
        let missing = Image::find(Path::new("no-such-image-anywhere"));
        assert!(matches!(missing, Err(ImageError::NotFound { .. })), "{missing:?}");
        let file = Image::find(Path::new("/no/such/file"));
        assert!(matches!(file, Err(ImageError::Disk(_))), "{file:?}");
    }
}
