//! The progress of a job with persistent state after its command has ended: the artifacts that
//! were fetched, and its exit status. A later service of the same job does not repeat them.
//!
//! The progress is one file in the state directory. Each change replaces the whole file.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use metaservice_private::{Directory, PrivateError};
use serde::{Deserialize, Serialize};

use crate::job::Artifact;

/// The file's name, which earlier releases use.
const NAME: &str = "ledger.json";

/// Why the progress cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: PrivateError,
    },
    /// The file cannot be read, or is no progress.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// The progress of one job. Without a state directory it is not stored.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    directory: Option<Directory>,
    entries: Entries,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    /// Sources and destinations of artifacts that were fetched.
    fetched: BTreeSet<(String, PathBuf)>,
    /// Whether the files that the guest gets before the command are in place.
    #[serde(default)]
    copied: bool,
    /// Whether the guest has started the command after that.
    #[serde(default)]
    started: bool,
    status: Option<u8>,
}

impl Progress {
    /// Reads what an earlier service of the job has stored.
    pub(crate) fn open(state: Option<&Path>) -> Result<Self, ProgressError> {
        let Some(path) = state else { return Ok(Self::default()) };
        let directory = match Directory::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => {
                opened.map_err(|cause| ProgressError::Directory { path: path.to_owned(), cause })?
            }
        };
        let read = || -> io::Result<Entries> {
            let Some(mut file) = directory.read(NAME)? else { return Ok(Entries::default()) };
            let mut json = Vec::new();
            file.read_to_end(&mut json)?;
            serde_json::from_slice(&json).map_err(io::Error::other)
        };
        let entries =
            read().map_err(|cause| ProgressError::Read { path: path.join(NAME), cause })?;
        Ok(Self { directory: Some(directory), entries })
    }

    /// Whether the progress is stored.
    pub(crate) fn is_stored(&self) -> bool {
        self.directory.is_some()
    }

    /// The exit status of the job, if it has ended.
    pub(crate) fn status(&self) -> Option<u8> {
        self.entries.status
    }

    pub(crate) fn has(&self, artifact: &Artifact) -> bool {
        self.entries.fetched.contains(&key(artifact))
    }

    pub(crate) fn fetched(&mut self, artifact: &Artifact) -> Result<(), ProgressError> {
        self.entries.fetched.insert(key(artifact));
        self.write()
    }

    /// Whether the guest has the files that it gets before the command.
    pub(crate) fn is_copied(&self) -> bool {
        self.entries.copied
    }

    /// Whether the guest has started the command after that.
    pub(crate) fn is_started(&self) -> bool {
        self.entries.started
    }

    pub(crate) fn copied(&mut self) -> Result<(), ProgressError> {
        self.entries.copied = true;
        self.write()
    }

    pub(crate) fn started(&mut self) -> Result<(), ProgressError> {
        self.entries.started = true;
        self.write()
    }

    pub(crate) fn ended(&mut self, status: u8) -> Result<(), ProgressError> {
        self.entries.status = Some(status);
        self.write()
    }

    fn write(&self) -> Result<(), ProgressError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let write = || -> io::Result<()> {
            Ok(directory.replace(NAME, &serde_json::to_vec(&self.entries)?)?)
        };
        write().map_err(|cause| ProgressError::Write { path: directory.path().to_owned(), cause })
    }
}

fn key(artifact: &Artifact) -> (String, PathBuf) {
    (artifact.source.clone(), artifact.destination.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::ArtifactSource;
    use crate::output::Named;

    fn artifact(source: &str, destination: &str) -> Artifact {
        let (source, destination) = (source.to_owned(), destination.into());
        Artifact { kind: ArtifactSource::Path, source, destination, named: Named::ByUser }
    }

    #[test]
    fn stored_progress_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let one = artifact("a", "b");
        let other = artifact("a", "c");
        let mut progress = Progress::open(Some(directory.path())).unwrap();
        assert!(!progress.has(&one) && progress.status().is_none());
        progress.fetched(&one).unwrap();
        let mut progress = Progress::open(Some(directory.path())).unwrap();
        assert!(progress.has(&one) && !progress.has(&other) && progress.status().is_none());
        progress.copied().unwrap();
        let mut progress = Progress::open(Some(directory.path())).unwrap();
        assert!(progress.is_copied() && !progress.is_started());
        progress.started().unwrap();
        progress.ended(3).unwrap();
        let progress = Progress::open(Some(directory.path())).unwrap();
        assert_eq!(progress.status(), Some(3));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_progress_is_refused_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(NAME), "[]").unwrap();
        let refused = Progress::open(Some(directory.path())).unwrap_err();
        assert!(refused.to_string().contains(NAME), "{refused}");
    }
}
