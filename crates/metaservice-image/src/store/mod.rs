//! Disk images of this user's, under their digests and by names.
//!
//! Owns the folder. An image in it is whole or not there, is never written again, and keeps the
//! format that it was found to have when it came: what a guest writes into a raw disk is never
//! taken for a header. What is being made is in a folder of its own that is locked by its maker;
//! the next maker removes what one that was killed has left.
//!
//! | path | what |
//! | --- | --- |
//! | `DIGEST/disk` | the image, read-only; DIGEST is the SHA-256 of its bytes |
//! | `DIGEST/manifest` | its format, what tells that it was not touched, and the caller's words |
//! | `names/NAME` | a link to the folder of the image |
//! | `.making-*` | one that is being made |
//! | `lock` | locked while names or digests change |

mod draft;
mod name;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use metaservice_private::{Directory, Location, PrivateError};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

pub use self::draft::ImageDraft;
pub use self::name::{ImageDigest, ImageName, InvalidImageName};
use crate::disk::{Disk, DiskError, Format};

/// The largest manifest.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// An image that cannot be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// What was used.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The folder, or a file in it, is not this user's alone.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The file is none that a machine is given.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Neither raw nor qcow2.
    #[error(
        "an image in the format {0:?} is not kept: convert it with 'qemu-img convert -O qcow2'"
    )]
    Format(Format),
    /// There is none of this name or digest.
    #[error("there is no image {0:?}")]
    NoSuchImage(String),
    /// More than one digest begins like this.
    #[error("more than one image begins with {0:?}")]
    Ambiguous(String),
    /// Another image has the name.
    #[error("there is another image with the name {0}")]
    NameTaken(ImageName),
    /// The file system has no room.
    #[error("there is no room: {needed} bytes are needed in {path}, and {available} are there")]
    Full {
        /// Where.
        path: PathBuf,
        /// How much.
        needed: u64,
        /// How much there is.
        available: u64,
    },
    /// It is not what came. It is kept, for whoever wants to look at it.
    #[error("the image {0} was changed since it came: remove it, and import it again")]
    Changed(ImageDigest),
    /// Whoever was asked did not want to go on.
    #[error("stopped")]
    Stopped,
    /// There is no folder to keep images in.
    #[error(
        "this user has no home directory, and XDG_DATA_HOME is not set: there is no folder for images"
    )]
    NoHome,
}

/// The images of this user.
#[derive(Debug, Clone)]
pub struct ImageStore {
    location: Location,
    folder: PathBuf,
}

/// An image that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Its names, in their order.
    pub names: Vec<ImageName>,
    /// Its format.
    pub format: Format,
    /// How much of the host's disk it takes.
    pub occupied: u64,
    /// When it came.
    pub created: SystemTime,
    /// The caller's words of when it came.
    pub words: Value,
    path: PathBuf,
}

impl StoredImage {
    /// The disk, as a machine may be given it.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::known(self.path.clone(), self.format)
    }
}

/// An image that is kept and cannot be used.
#[derive(Debug)]
pub struct BrokenImage {
    /// Its digest.
    pub digest: ImageDigest,
    /// Its names, in their order.
    pub names: Vec<ImageName>,
    /// What is wrong with it.
    pub why: StoreError,
}

/// What a removal has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The image.
    pub digest: ImageDigest,
    /// Its disk, if no other name led to it: it is gone.
    pub disk: Option<PathBuf>,
}

/// Hears how many bytes were done more, and says whether to go on.
pub type Observer<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

impl ImageStore {
    /// Those in `$XDG_DATA_HOME/metaservice/images`, or `~/.local/share/metaservice/images`.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn of_user() -> Result<Self, StoreError> {
        let location = Location::Data("images");
        let folder = location.path().ok_or(StoreError::NoHome)?;
        Ok(Self { location, folder })
    }

    /// Those in a folder, which is made when it is needed.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { location: Location::At(folder.clone()), folder }
    }

    /// All of them, those with names first, in the order of their names; and those that cannot be
    /// used, which can only be removed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<(Vec<StoredImage>, Vec<BrokenImage>), StoreError> {
        self.check()?;
        let names = self.names()?;
        let digests = entries(&self.folder).map_err(|source| self.failed(source))?;
        let (mut images, mut broken) = (Vec::new(), Vec::new());
        for digest in digests.into_iter().filter_map(|name| name.parse().ok()) {
            match self.read(&digest, &names) {
                Ok(image) => images.push(image),
                Err(why) => broken.push(BrokenImage { names: named(&names, &digest), digest, why }),
            }
        }
        images.sort_by(|one, other| {
            let key = |image: &StoredImage| (image.names.is_empty(), image.names.first().cloned());
            key(one).cmp(&key(other)).then_with(|| one.digest.cmp(&other.digest))
        });
        Ok((images, broken))
    }

    /// The image of this name, or whose digest is `sha256:` and this: the beginning of one is
    /// enough, 8 digits at least.
    ///
    /// # Errors
    /// When there is none, or it is not what came.
    pub fn find(&self, word: &str) -> Result<StoredImage, StoreError> {
        self.check()?;
        let names = self.names()?;
        self.read(&self.digest_of(word, &names)?, &names)
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
        let all = entries(&self.folder).map_err(|source| self.failed(source))?;
        let mut fitting = all.into_iter().filter(|name| name.starts_with(beginning));
        let found = fitting.next().and_then(|name| name.parse().ok()).ok_or_else(none)?;
        match fitting.next() {
            None => Ok(found),
            Some(_) => Err(StoreError::Ambiguous(word.to_owned())),
        }
    }

    /// Whether there is an image of this name, whatever its state.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        word.parse().is_ok_and(|name: ImageName| self.link(&name).is_symlink())
    }

    /// Keeps a copy of a file under a name, with words of the caller's. Where its content is
    /// there already it gets one name more. Blocks.
    ///
    /// # Errors
    /// When the file is no image that is kept, when the name is another image's, when there is
    /// no room. Nothing of it is left then.
    pub fn import(
        &self,
        file: &Path,
        name: &ImageName,
        words: &Value,
        observe: Observer<'_>,
    ) -> Result<StoredImage, StoreError> {
        // Looked at before it is copied, to say so early; what counts is the copy.
        let format = Disk::open(file)?.format();
        if !matches!(format, Format::Raw | Format::Qcow2) {
            return Err(StoreError::Format(format));
        }
        let draft = ImageDraft::begin(self)?;
        let digest = draft.fill(file, observe)?;
        let format = Disk::open(draft.path())?.format();
        draft.settle(&digest, format, name, words)
    }

    /// A copy of an image that may be written, to be kept as another one. Blocks.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn draft(
        &self,
        image: &StoredImage,
        observe: Observer<'_>,
    ) -> Result<ImageDraft, StoreError> {
        let mut draft = ImageDraft::begin(self)?;
        draft.copy(image, observe)?;
        Ok(draft)
    }

    /// Removes a name, and the image with its last one; or the image of a digest, as
    /// [`find`](Self::find) takes it, with all its names. Machines that run from it do not notice.
    ///
    /// # Errors
    /// When there is none, or what is there cannot be removed.
    pub fn remove(&self, word: &str) -> Result<Removed, StoreError> {
        if !self.folder.exists() {
            return Err(StoreError::NoSuchImage(word.to_owned()));
        }
        let _changing = self.lock()?;
        draft::remove_abandoned(&self.folder);
        let names = self.names()?;
        let digest = self.digest_of(word, &names)?;
        let mut names = named(&names, &digest);
        if let (Ok(name), 2..) = (word.parse::<ImageName>(), names.len()) {
            names.retain(|other| *other == name);
            self.unlink(&names)?;
            return Ok(Removed { digest, disk: None });
        }
        let place = self.place(&digest);
        // Whoever looks now finds it whole or not at all, and no name leads to what is not there
        // for longer than this takes.
        let leaving = self.folder.join(format!("{}{}", draft::MAKING, digest.as_str()));
        match fs::rename(&place, &leaving) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&place)(error));
            }
            _ => {}
        }
        self.unlink(&names)?;
        // What stays is removed by whoever comes next.
        let _ = fs::remove_dir_all(&leaving);
        Ok(Removed { digest, disk: Some(place.join("disk")) })
    }

    fn unlink(&self, names: &[ImageName]) -> Result<(), StoreError> {
        for name in names {
            let link = self.link(name);
            fs::remove_file(&link).map_err(failed(&link))?;
        }
        Ok(())
    }

    fn read(
        &self,
        digest: &ImageDigest,
        names: &BTreeMap<ImageName, ImageDigest>,
    ) -> Result<StoredImage, StoreError> {
        let place = self.place(digest);
        let path = place.join("disk");
        let manifest = manifest(&place).map_err(failed(&place))?;
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        let format = match manifest["format"].as_str() {
            Some("raw") => Format::Raw,
            Some("qcow2") => Format::Qcow2,
            _ => return Err(StoreError::Changed(digest.clone())),
        };
        if draft::description(&metadata) != manifest["disk"] {
            return Err(StoreError::Changed(digest.clone()));
        }
        let created = Duration::from_secs(manifest["created"].as_u64().unwrap_or_default());
        Ok(StoredImage {
            digest: digest.clone(),
            names: named(names, digest),
            format,
            occupied: metadata.blocks() * 512,
            created: SystemTime::UNIX_EPOCH + created,
            words: manifest["words"].clone(),
            path,
        })
    }

    /// Names, and what they lead to.
    fn names(&self) -> Result<BTreeMap<ImageName, ImageDigest>, StoreError> {
        let folder = self.folder.join("names");
        let names = entries(&folder).map_err(failed(&folder))?;
        let led = |name: String| {
            let name: ImageName = name.parse().ok()?;
            let target = fs::read_link(self.link(&name)).ok()?;
            Some((name, target.file_name()?.to_str()?.parse().ok()?))
        };
        Ok(names.into_iter().filter_map(led).collect())
    }

    fn link(&self, name: &ImageName) -> PathBuf {
        self.folder.join("names").join(name.as_str())
    }

    fn place(&self, digest: &ImageDigest) -> PathBuf {
        self.folder.join(digest.as_str())
    }

    /// Nobody else changes names or digests while this is held.
    fn lock(&self) -> Result<File, StoreError> {
        let directory = self.location.open()?;
        Directory::within(&self.folder, &["names"])?;
        let lock = directory.append("lock")?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| self.failed(errno.into()))?;
        Ok(lock)
    }

    /// Refuses a folder that is not this user's. One that is not there is not made.
    fn check(&self) -> Result<(), StoreError> {
        if self.folder.symlink_metadata().is_ok() {
            self.location.open()?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> StoreError {
        failed(&self.folder)(source)
    }
}

/// The names that lead to an image.
fn named(names: &BTreeMap<ImageName, ImageDigest>, digest: &ImageDigest) -> Vec<ImageName> {
    let of_it = names.iter().filter(|(_, other)| *other == digest);
    of_it.map(|(name, _)| name.clone()).collect()
}

/// What was used when this went wrong.
fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match source.kind() {
        io::ErrorKind::Interrupted => StoreError::Stopped,
        _ => StoreError::Io { path: path.to_owned(), source },
    }
}

fn manifest(place: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    File::open(place.join("manifest"))?.take(MAX_MANIFEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The names in a folder; none where there is no folder.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    let names: io::Result<Vec<_>> = entries.map(name).collect();
    Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
