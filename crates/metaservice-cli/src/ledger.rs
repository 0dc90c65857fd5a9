//! What a job that goes on after its service's death need not do again: artifacts that were
//! fetched, and the status it ended with. A file in the folder of `--state`, replaced as a whole.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use metaservice_private::Directory;
use serde::{Deserialize, Serialize};

use crate::settings::ArtifactSettings;
use crate::status::ExitStatus;

const NAME: &str = "ledger.json";

/// The ledger of one job; of one without `--state`, nothing.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    directory: Option<Directory>,
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
        let directory = match Directory::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened.with_context(|| format!("in --state {}", folder.display()))?,
        };
        let read = || {
            let Some(mut file) = directory.read(NAME)? else { return Ok(Entries::default()) };
            let mut json = Vec::new();
            file.read_to_end(&mut json)?;
            serde_json::from_slice(&json).map_err(io::Error::other)
        };
        let cannot = || format!("cannot read {}", folder.join(NAME).display());
        let entries = read().with_context(cannot)?;
        Ok(Self { directory: Some(directory), entries })
    }

    /// Whether anything that is done has to be noted.
    pub(crate) fn is_kept(&self) -> bool {
        self.directory.is_some()
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
        let Some(directory) = &self.directory else { return Ok(()) };
        let cannot = || format!("cannot write to {}", directory.path().display());
        directory.replace(NAME, &serde_json::to_vec(&self.entries)?).with_context(cannot)
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
