//! What a job that goes on after its service's death need not do again: artifacts that were
//! fetched, and the status it ended with. A file in the folder of `--state`, replaced as a whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::settings::ArtifactSettings;
use crate::status::ExitStatus;

/// The ledger of one job; of one without `--state`, nothing.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    folder: Option<PathBuf>,
    entries: Entries,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    /// Sources and destinations of artifacts that are in their places.
    fetched: BTreeSet<(String, PathBuf)>,
    status: Option<u8>,
}

impl Ledger {
    /// Reads what an earlier service of the job has noted.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        let path = folder.join("ledger.json");
        let entries = match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entries::default()),
            Err(error) => Err(error),
        };
        let entries = entries.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { folder: Some(folder.to_owned()), entries })
    }

    /// Whether anything that is done has to be noted.
    pub(crate) fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    /// The status the job has ended with.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.entries.status.map(ExitStatus)
    }

    pub(crate) fn has(&self, artifact: &ArtifactSettings) -> bool {
        self.entries.fetched.contains(&key(artifact))
    }

    pub(crate) fn fetched(&mut self, artifact: &ArtifactSettings) -> Result<()> {
        self.entries.fetched.insert(key(artifact));
        self.write()
    }

    pub(crate) fn ended(&mut self, status: ExitStatus) -> Result<()> {
        self.entries.status = Some(status.0);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(&self.entries)?)?;
            file.as_file().sync_all()?;
            file.persist(folder.join("ledger.json"))?;
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write to {}", folder.display()))
    }
}

fn key(artifact: &ArtifactSettings) -> (String, PathBuf) {
    (artifact.source.clone(), artifact.destination.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Named;

    fn artifact(source: &str, destination: &str) -> ArtifactSettings {
        let (source, destination) = (source.to_owned(), destination.into());
        ArtifactSettings { source, destination, named: Named::ByUser }
    }

    #[test]
    fn what_was_noted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let one = artifact("a", "b");
        let other = artifact("a", "c");
        let mut ledger = Ledger::open(Some(folder.path())).unwrap();
        assert!(!ledger.has(&one) && ledger.status().is_none());
        ledger.fetched(&one).unwrap();
        let mut ledger = Ledger::open(Some(folder.path())).unwrap();
        assert!(ledger.has(&one) && !ledger.has(&other) && ledger.status().is_none());
        ledger.ended(ExitStatus(3)).unwrap();
        let ledger = Ledger::open(Some(folder.path())).unwrap();
        assert_eq!(ledger.status(), Some(ExitStatus(3)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(folder.path().join("ledger.json"), "[]").unwrap();
        let refused = Ledger::open(Some(folder.path())).unwrap_err();
        assert!(refused.to_string().contains("ledger.json"));
    }
}
