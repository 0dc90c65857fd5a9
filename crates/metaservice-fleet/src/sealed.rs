//! Secrets of a job, sealed for workers.
//!
//! All workers that may open secrets share one key pair. Its public key comes to the client by hand:
//! a key that a worker announced over the queue could be that of anyone who writes there. The box is
//! `crypto_box` of NaCl (X25519, XSalsa20 and Poly1305) with a key pair of the client that is used
//! once. The text in it names the job and the digest of its request, so no client can move the
//! box to another job, or to another command under the same id.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::XKey;
use serde::{Deserialize, Serialize};

use crate::name::JobId;

/// The most bytes of all values and names of a job together.
pub const MAX_SECRETS: usize = 64 * 1024;

/// The longest box as base64.
const MAX_BOX: usize = 4 * MAX_SECRETS;

/// The longest file of a key, in bytes.
const MAX_FILE: u64 = 4096;

/// The longest text of a public key.
const MAX_KEY: usize = 128;

/// The values of secrets, by their names.
pub type Secrets = BTreeMap<String, String>;

/// Secrets that only the owners of one key can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sealed {
    /// The public key that they are for.
    pub to: String,
    /// The public key of this box.
    from: String,
    /// The box, as base64.
    #[serde(rename = "box")]
    content: String,
}

/// Why secrets were not sealed or not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A text is no public key.
    #[error("this is no public key of a queue: it begins with X and has 56 characters")]
    PublicKey,
    /// They are too long.
    #[error("the secrets have more than {MAX_SECRETS} bytes")]
    Size,
    /// They have no form in JSON.
    #[error("secrets have no form in JSON")]
    Form(#[source] serde_json::Error),
    /// The worker has no key.
    #[error("the job has secrets, and this worker has no --key")]
    NoKey,
    /// The worker has another key.
    #[error("the secrets are sealed for the key {to}, and this worker has {own}")]
    OtherKey {
        /// The key that they are for.
        to: String,
        /// That of the worker.
        own: String,
    },
    /// They were changed, or are no secrets.
    #[error("the secrets of the job were changed: they cannot be opened")]
    Changed,
    /// They were sealed for another job.
    #[error("the secrets are those of another job")]
    OtherJob,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be used.
    #[error("cannot use the key {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Others can read the file.
    #[error("others can read the key {}: its mode must be 600", .0.display())]
    Mode(PathBuf),
    /// The file has no key.
    #[error("{} has no key of a queue", .0.display())]
    Content(PathBuf),
}

/// A public key that a client seals secrets for.
#[derive(Clone)]
pub struct PublicKey(XKey);

impl FromStr for PublicKey {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        if text.len() > MAX_KEY {
            return Err(SealError::PublicKey);
        }
        XKey::from_public_key(text).map(Self).map_err(|_| SealError::PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.public_key())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The key pair of workers.
#[derive(Clone)]
pub struct WorkerKey(XKey);

impl fmt::Debug for WorkerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WorkerKey").field(&self.public()).finish()
    }
}

impl WorkerKey {
    /// A new key pair.
    #[must_use]
    pub fn random() -> Self {
        Self(XKey::new())
    }

    /// The key pair in a file. If there is no file, it is made, with a new key that only this user
    /// can read.
    ///
    /// # Errors
    /// When the file cannot be used, others can read it, or it has no key.
    pub fn of_file(path: &Path) -> Result<Self, KeyError> {
        match Self::make(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            made => made.map_err(|cause| KeyError::File { path: path.to_owned(), cause }),
        }
    }

    fn make(path: &Path) -> io::Result<Self> {
        use std::io::Write;
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let key = Self::random();
        let seed = key.0.seed().map_err(io::Error::other)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A file of this kind has mode 600, and is there as a whole or not at all.
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        writeln!(file, "{seed}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        Ok(key)
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        use std::io::Read;
        use std::os::unix::fs::MetadataExt;
        let failed = |cause| KeyError::File { path: path.to_owned(), cause };
        // A pipe without a writer must not stop the worker.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let options = std::fs::OpenOptions::new().read(true).custom_flags(flags).to_owned();
        let file = options.open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(KeyError::Mode(path.to_owned()));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        XKey::from_seed(text.trim()).map(Self).map_err(|_| KeyError::Content(path.to_owned()))
    }

    /// The public key, for clients.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.clone())
    }
}

/// What the secrets belong to. In another place, they cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    pub(crate) job: JobId,
    /// The digest of the request without its secrets.
    pub(crate) request: String,
}

/// What is in the box.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    owner: Owner,
    secrets: Secrets,
}

impl Sealed {
    /// Seals secrets. Refuses those that are too long.
    pub(crate) fn new(secrets: &Secrets, key: &PublicKey, owner: Owner) -> Result<Self, SealError> {
        if length(secrets) > MAX_SECRETS {
            return Err(SealError::Size);
        }
        let content = Content { owner, secrets: secrets.clone() };
        let content = serde_json::to_vec(&content).map_err(SealError::Form)?;
        let from = XKey::new();
        let content = from.seal(&content, &key.0).map_err(|_| SealError::PublicKey)?;
        let content = STANDARD.encode(content);
        Ok(Self { to: key.to_string(), from: from.public_key(), content })
    }

    /// Opens the secrets of this owner.
    pub(crate) fn open(
        &self,
        key: Option<&WorkerKey>,
        owner: &Owner,
    ) -> Result<Secrets, SealError> {
        let key = key.ok_or(SealError::NoKey)?;
        let own = key.public().to_string();
        if own != self.to {
            return Err(SealError::OtherKey { to: self.to.clone(), own });
        }
        let from: PublicKey = self.from.parse().map_err(|_| SealError::Changed)?;
        let content = STANDARD.decode(&self.content).map_err(|_| SealError::Changed)?;
        let content = key.0.open(&content, &from.0).map_err(|_| SealError::Changed)?;
        let content: Content = serde_json::from_slice(&content).map_err(|_| SealError::Changed)?;
        if content.owner != *owner {
            return Err(SealError::OtherJob);
        }
        if length(&content.secrets) > MAX_SECRETS {
            return Err(SealError::Size);
        }
        Ok(content.secrets)
    }

    /// Whether each part has a length that a worker accepts.
    pub(crate) fn is_bounded(&self) -> bool {
        let keys = [&self.to, &self.from];
        keys.iter().all(|key| key.len() <= MAX_KEY) && self.content.len() <= MAX_BOX
    }
}

fn length(secrets: &Secrets) -> usize {
    secrets.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn owner(job: &str) -> Owner {
        Owner { job: job.parse().unwrap(), request: "digest".to_owned() }
    }

    fn sealed(key: &WorkerKey) -> Sealed {
        let secrets = [("TOKEN".to_owned(), "hunter2".to_owned())].into();
        Sealed::new(&secrets, &key.public(), owner("a")).unwrap()
    }

    #[test]
    fn only_the_key_opens_secrets() {
        let (key, other) = (WorkerKey::random(), WorkerKey::random());
        let mut sealed = sealed(&key);
        assert_eq!(sealed.open(Some(&key), &owner("a")).unwrap()["TOKEN"], "hunter2");
        assert!(matches!(sealed.open(None, &owner("a")), Err(SealError::NoKey)));
        let refused = sealed.open(Some(&other), &owner("a"));
        assert!(matches!(refused, Err(SealError::OtherKey { .. })), "{refused:?}");
        // To name another key opens nothing.
        sealed.to = other.public().to_string();
        let refused = sealed.open(Some(&other), &owner("a"));
        assert!(matches!(refused, Err(SealError::Changed)), "{refused:?}");
    }

    #[test]
    fn secrets_have_a_limit() {
        let large = [("A".to_owned(), "x".repeat(MAX_SECRETS))].into();
        let key = WorkerKey::random();
        let refused = Sealed::new(&large, &key.public(), owner("a"));
        assert!(matches!(refused, Err(SealError::Size)));
        let mut sealed = sealed(&key);
        assert!(sealed.is_bounded());
        sealed.content = "A".repeat(MAX_BOX + 1);
        assert!(!sealed.is_bounded());
    }

    #[test]
    fn a_key_is_made_once_and_only_for_its_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = WorkerKey::of_file(&path).unwrap();
        let again = WorkerKey::of_file(&path).unwrap();
        assert_eq!(key.public().to_string(), again.public().to_string());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(WorkerKey::of_file(&path), Err(KeyError::Mode(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "X").unwrap();
        assert!(matches!(WorkerKey::of_file(&path), Err(KeyError::Content(_))));
        let seed = key.0.seed().unwrap();
        assert!(!format!("{key:?}").contains(&seed), "a key is not shown");
    }

    proptest! {
        #[test]
        fn secrets_survive_the_queue(secrets: BTreeMap<String, String>, place: prop::sample::Index) {
            let key = WorkerKey::random();
            let sealed = Sealed::new(&secrets, &key.public(), owner("a")).unwrap();
            let json = serde_json::to_string(&sealed).unwrap();
            let mut read: Sealed = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read.open(Some(&key), &owner("a")).unwrap(), &secrets);
            // One bit of the box.
            let mut content = STANDARD.decode(&read.content).unwrap();
            let place = place.index(content.len());
            content[place] ^= 1;
            read.content = STANDARD.encode(content);
            prop_assert!(read.open(Some(&key), &owner("a")).is_err());
        }
    }
}
