//! Where artifacts and whole logs are kept: in the object store of the queue, in a directory, or in a
//! bucket of a cloud provider.
//!
//! An object is visible only as a whole. It has a digest, which the step of its job names, so a
//! reader trusts no store.

mod error;
mod upload;

use std::fmt;
use std::io::Seek;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::{InspectReader, InspectWriter};
use url::Url;

pub use self::error::{GetError, OpenError, PutError};
use self::upload::upload;
use crate::queue::Queue;
use crate::step::{Digest, Object};

/// How often a read continues after an error, if it had got bytes since the one before.
const READS: u32 = 5;

/// A store. A clone is the same one.
#[derive(Clone)]
pub struct Store(Kind);

#[derive(Clone)]
enum Kind {
    Queue(Box<Queue>),
    Objects { url: Arc<str>, objects: Arc<dyn ObjectStore>, prefix: Path },
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Store").field(&self.url().unwrap_or("queue")).finish()
    }
}

impl Store {
    /// The object store of a queue.
    #[must_use]
    pub fn of_queue(queue: Queue) -> Self {
        Self(Kind::Queue(Box::new(queue)))
    }

    /// The store at this address: `file:///DIRECTORY`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. The credentials come from the variables of the provider's tools, such
    /// as `AWS_ACCESS_KEY_ID`. A directory is created if it does not exist.
    ///
    /// # Errors
    /// When the address or the settings are wrong. No connection is made.
    pub fn open(address: &str) -> Result<Self, OpenError> {
        let url = Url::parse(address).map_err(|_| OpenError::Url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OpenError::Password);
        }
        let (objects, prefix) = match url.scheme() {
            "file" => (directory(&url)?, Path::default()),
            #[cfg(feature = "clouds")]
            "s3" | "gs" | "az" => bucket(&url)?,
            _ => return Err(OpenError::Url),
        };
        Ok(Self(Kind::Objects { url: address.into(), objects, prefix }))
    }

    /// The address. `None`: the object store of the queue.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match &self.0 {
            Kind::Queue(_) => None,
            Kind::Objects { url, .. } => Some(url),
        }
    }

    /// Stores a file from its first byte. An object of this name is replaced.
    ///
    /// Cancellation: the object is not visible.
    ///
    /// # Errors
    /// When the file cannot be read, or the store does not take it.
    pub async fn put(&self, name: &str, file: std::fs::File) -> Result<Object, PutError> {
        let mut file = file;
        file.rewind().map_err(PutError::Read)?;
        let (file, mut hasher) = (tokio::fs::File::from_std(file), Sha256::new());
        let mut reader = InspectReader::new(file, |bytes: &[u8]| hasher.update(bytes));
        let bytes = match &self.0 {
            Kind::Queue(queue) => queue.store(name, &mut reader).await.map_err(PutError::Queue)?,
            Kind::Objects { objects, prefix, .. } => {
                upload(objects.as_ref(), &object(prefix, name), &mut reader).await?
            }
        };
        let (name, store) = (name.to_owned(), self.url().map(ToOwned::to_owned));
        Ok(Object { name, bytes, digest: digest(hasher), store })
    }

    /// Stores the file at this path, as [`put`](Self::put).
    pub(crate) async fn put_path(
        &self,
        name: &str,
        path: &std::path::Path,
    ) -> Result<Object, PutError> {
        self.put(name, std::fs::File::open(path).map_err(PutError::Read)?).await
    }

    /// Reads an object of this store. It continues after errors where it was.
    ///
    /// Cancellation: a part of it is written.
    ///
    /// # Errors
    /// When it is in another store, it is missing or has another digest, or it cannot be written.
    pub async fn get(
        &self,
        wanted: &Object,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), GetError> {
        if wanted.store.as_deref() != self.url() {
            let of_queue = "the queue".to_owned();
            return Err(GetError::Elsewhere(wanted.store.clone().unwrap_or(of_queue)));
        }
        let name = wanted.name.as_str();
        let mut hasher = Sha256::new();
        let mut to = InspectWriter::new(to, |bytes: &[u8]| hasher.update(bytes));
        match &self.0 {
            Kind::Queue(queue) => drop(queue.fetch(name, &mut to).await?),
            Kind::Objects { objects, prefix, .. } => {
                read(objects.as_ref(), &object(prefix, name), name, &mut to).await?;
            }
        }
        to.flush().await.map_err(GetError::Write)?;
        if digest(hasher) == wanted.digest {
            Ok(())
        } else {
            Err(GetError::Digest(name.to_owned()))
        }
    }
}

fn digest(hasher: Sha256) -> Digest {
    Digest(metaservice_private::hex(&hasher.finalize()))
}

/// The place of an object.
fn object(prefix: &Path, name: &str) -> Path {
    prefix.clone().join(name)
}

fn directory(url: &Url) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let path = url.to_file_path().map_err(|()| OpenError::Url)?;
    let failed = |cause| OpenError::Directory { path: path.clone(), cause };
    std::fs::create_dir_all(&path).map_err(failed)?;
    let directory = LocalFileSystem::new_with_prefix(&path).map_err(OpenError::Settings)?;
    Ok(Arc::new(directory.with_fsync(true)))
}

#[cfg(feature = "clouds")]
fn bucket(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    // The HTTP client brings no cryptography of its own. Another part of the process may have
    // chosen one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let known = ["aws_", "google_", "azure_"];
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?.to_ascii_lowercase();
        let is_known = known.iter().any(|provider| name.starts_with(provider));
        is_known.then_some((name, value.into_string().ok()?))
    });
    let (objects, prefix) =
        object_store::parse_url_opts(url, variables).map_err(OpenError::Settings)?;
    Ok((objects.into(), prefix))
}

/// Reads an object, and continues after an error that came behind new bytes.
async fn read(
    objects: &dyn ObjectStore,
    place: &Path,
    name: &str,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), GetError> {
    let failed = |cause| GetError::Store { name: name.to_owned(), cause };
    let (mut read, mut errors) = (0, 0);
    loop {
        let from = read;
        let range = (from > 0).then_some(GetRange::Offset(from));
        let options = GetOptions { range, ..GetOptions::default() };
        let object = objects.get_opts(place, options).await.map_err(failed)?;
        let size = object.meta.size;
        let mut stream = object.into_stream();
        let cause = loop {
            match stream.next().await {
                None => return Ok(()),
                Some(Ok(bytes)) => {
                    to.write_all(&bytes).await.map_err(GetError::Write)?;
                    read += bytes.len() as u64;
                }
                Some(Err(error)) => break error,
            }
        };
        errors += 1;
        if read == from || errors > READS {
            return Err(failed(cause));
        }
        if read == size {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[tokio::test]
    async fn an_object_in_a_directory_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a b");
        let store = Store::open(Url::from_directory_path(&place).unwrap().as_str()).unwrap();
        let content = b"content".repeat(3_000_000);
        let kept = store.put("id.1.0", file(&content)).await.unwrap();
        assert_eq!(kept.bytes, content.len() as u64);
        let mut read = Vec::new();
        store.get(&kept, &mut read).await.unwrap();
        assert_eq!(read, content);
        let names: Vec<_> = std::fs::read_dir(&place).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "no part is left: {names:?}");

        std::fs::write(place.join("id.1.0"), "changed").unwrap();
        let changed = store.get(&kept, &mut Vec::new()).await;
        assert!(matches!(changed, Err(GetError::Digest(_))));
        let other = Object { name: "id.1.1".to_owned(), ..kept.clone() };
        let missing = store.get(&other, &mut Vec::new()).await;
        assert!(matches!(missing, Err(GetError::Store { .. })));
        let elsewhere = Object { store: Some("s3://a".to_owned()), ..kept };
        let elsewhere = store.get(&elsewhere, &mut Vec::new()).await;
        assert!(matches!(elsewhere, Err(GetError::Elsewhere(_))));
    }

    #[tokio::test]
    async fn what_a_store_does_not_take_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Url::from_directory_path(&directory).unwrap().as_str()).unwrap();
        // A directory is where the object should be.
        std::fs::create_dir_all(directory.path().join("id.1.0/in")).unwrap();
        for content in [&b"small"[..], &b"content".repeat(3_000_000)] {
            let refused = store.put("id.1.0", file(content)).await;
            assert!(matches!(refused, Err(PutError::Store(_))), "{refused:?}");
        }
    }

    #[test]
    fn an_address_names_a_store_and_no_password() {
        for wrong in ["", "a", "http://a", "memory://", "file://host/a"] {
            assert!(matches!(Store::open(wrong), Err(OpenError::Url)), "{wrong}");
        }
        assert!(matches!(Store::open("s3://user:secret@bucket"), Err(OpenError::Password)));
    }

    #[cfg(feature = "clouds")]
    #[test]
    fn buckets_of_three_providers_are_known() {
        assert_eq!(Store::open("s3://bucket/a").unwrap().url(), Some("s3://bucket/a"));
        assert!(Store::open("gs://bucket/a").is_ok());
    }
}
