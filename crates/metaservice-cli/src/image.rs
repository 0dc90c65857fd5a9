//! The image that a machine boots: one that is kept, or a file.
//!
//! Owns what the word after `--image` means, and what is said of an image when it is kept.

use std::path::Path;

use anyhow::{Context, Error, Result};
use metaservice_image::{Disk, ImageName, ImageStore, StoreError, StoredImage};
use serde_json::{Value, json};

use crate::args::Net;
use crate::printer::Hint;

/// What a machine boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) disk: Disk,
    /// The image, if it is one that is kept.
    pub(crate) stored: Option<StoredImage>,
}

/// What was done to an image before it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// What it was made of, as its user called it.
    pub(crate) from: String,
    /// Whether it knows a card to the outside world.
    pub(crate) network: bool,
}

impl Image {
    /// What the word after `--image` means. A name that an image has is that image's; everything
    /// else is a file.
    pub(crate) fn resolve(word: &Path) -> Result<Self> {
        let text = word.to_str().unwrap_or_default();
        let store = ImageStore::of_user();
        let named =
            text.starts_with("sha256:") || store.as_ref().is_ok_and(|store| store.has(text));
        if named {
            return Self::kept(&store?, text).context("in --image");
        }
        let disk = Disk::open(word).context("in --image");
        match disk {
            Err(error) if !text.contains('/') && !word.exists() => {
                let hint = "it is the name of no image either: metaservice image ls";
                Err(Error::new(Hint(hint.to_owned())).context(format!("{error:#}")))
            }
            disk => Ok(Self { disk: disk?, stored: None }),
        }
    }

    /// The kept image of this name or digest.
    pub(crate) fn kept(store: &ImageStore, word: &str) -> Result<Self> {
        let stored = find(store, word)?;
        Ok(Self { disk: stored.disk(), stored: Some(stored) })
    }

    /// What was done to it, if anything was.
    pub(crate) fn prepared(&self) -> Option<Prepared> {
        Prepared::read(&self.stored.as_ref()?.notes)
    }

    /// Refuses what a prepared image will not do.
    pub(crate) fn check(&self, net: Net, told: bool) -> Result<()> {
        let Some(prepared) = self.prepared() else { return Ok(()) };
        let hinted = |hint: &str, what: &str| {
            Err(Error::new(Hint(hint.to_owned())).context(what.to_owned()))
        };
        if told {
            return hinted(
                "give them to \"metaservice image prepare\" when it is made of a stock image",
                "the cloud-init of a prepared image does not run again: there is nobody to tell keys or \
                 user data",
            );
        }
        if net == Net::User && !prepared.network {
            return hinted(
                "give --net user to \"metaservice image prepare\" too when it is made of a stock image",
                "the image was prepared without a card to the outside world",
            );
        }
        Ok(())
    }
}

impl Prepared {
    /// As words to be kept with an image.
    pub(crate) fn write(&self) -> Value {
        json!({ "prepared": { "from": self.from, "network": self.network } })
    }

    pub(crate) fn read(words: &Value) -> Option<Self> {
        let prepared = words.get("prepared")?;
        Some(Self {
            from: prepared.get("from")?.as_str()?.to_owned(),
            network: prepared.get("network")?.as_bool()?,
        })
    }
}

/// An image by its name or digest, or what there is to choose from.
pub(crate) fn find(store: &ImageStore, word: &str) -> Result<StoredImage> {
    store.find(word).map_err(|error| hinted(error, store))
}

/// The error, with the names that there are.
pub(crate) fn hinted(error: StoreError, store: &ImageStore) -> Error {
    let hint = match &error {
        StoreError::NoSuchImage(word) if word == "builtin" => {
            "that is our own guest, which is no image".to_owned()
        }
        StoreError::NoSuchImage(word) if word.contains('/') => {
            format!("it is a file: metaservice image import {word}")
        }
        StoreError::NoSuchImage(word) if word.starts_with("sha256:") => {
            "8 digits of it or more, as in metaservice image ls".to_owned()
        }
        StoreError::NoSuchImage(_) => {
            let listed = store.list().unwrap_or_default();
            let names = listed.0.iter().flat_map(|image| &image.names).map(ImageName::as_str);
            let names: Vec<_> = names.collect();
            if names.is_empty() {
                "there is none yet: metaservice image import FILE".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            }
        }
        StoreError::NameTaken(name) => {
            format!("choose another name, or remove that one: metaservice image rm {name}")
        }
        _ => return error.into(),
    };
    Error::new(Hint(hint)).context(error.to_string())
}

/// The words that are kept with an image that comes from a file.
pub(crate) fn origin(file: &Path) -> Value {
    json!({ "source": file.file_name().and_then(|name| name.to_str()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_read_as_it_was_written() {
        let prepared = Prepared { from: "debian".into(), network: true };
        assert_eq!(Prepared::read(&prepared.write()), Some(prepared));
        for other in [json!(null), json!({ "source": "a" }), json!({ "prepared": {} })] {
            assert_eq!(Prepared::read(&other), None, "{other}");
        }
    }
}
