//! Artifacts: files of the guest that the host fetches when the command has ended.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::output::Named;
use crate::spec::ArtifactSpec;

/// A file to fetch and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The path in the guest, as it was written.
    pub(crate) source: String,
    /// The file on the host.
    pub(crate) destination: PathBuf,
    /// Where the destination's last name comes from.
    pub(crate) named: Named,
}

/// Why a description of an artifact is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidArtifact {
    /// The path in the guest is empty.
    #[error("an artifact needs a path in the guest")]
    NoSource,
    /// The path in the guest has a zero byte.
    #[error("a path cannot contain a zero byte")]
    ZeroByte,
    /// The path in the guest is that of a directory.
    #[error("{0} names no file")]
    NoFile(String),
    /// The destination is empty.
    #[error("there is nothing after the colon")]
    NoDestination,
    /// The destination is standard output.
    #[error("an artifact cannot go to standard output: the log does")]
    StandardOutput,
    /// The directory of the destination does not exist.
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
}

impl Artifact {
    /// The path in the guest, as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The file on the host.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    pub(super) fn resolve(spec: &ArtifactSpec) -> Result<Self, InvalidArtifact> {
        let source = spec.path.clone();
        if source.is_empty() {
            return Err(InvalidArtifact::NoSource);
        }
        if source.contains('\0') {
            return Err(InvalidArtifact::ZeroByte);
        }
        let name = Path::new(&source).file_name().filter(|_| !source.ends_with('/'));
        let Some(name) = name else { return Err(InvalidArtifact::NoFile(source)) };
        let (destination, named) = match spec.to.as_deref() {
            None => (PathBuf::from(name), Named::ByGuest),
            Some(path) => match path.to_str() {
                Some("") => return Err(InvalidArtifact::NoDestination),
                Some("-") => return Err(InvalidArtifact::StandardOutput),
                Some(text) if text.ends_with('/') => (path.join(name), Named::ByGuest),
                _ if path.is_dir() => (path.join(name), Named::ByGuest),
                _ => (path.to_owned(), Named::ByUser),
            },
        };
        let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            return Err(InvalidArtifact::NoDirectory(parent.to_owned()));
        }
        Ok(Self { source, destination, named })
    }
}

impl FromStr for ArtifactSpec {
    type Err = std::convert::Infallible;

    /// Reads `PATH[:DESTINATION]`. A colon that belongs to the path has a backslash before it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, to) = split_source(text);
        Ok(Self { path, to: to.map(PathBuf::from) })
    }
}

/// Splits at the first colon with an even number of backslashes before it, zero included. Before
/// a colon, two backslashes stand for one, and an odd one is removed, because it escapes the colon.
/// Elsewhere a backslash has no special meaning.
pub(super) fn split_source(text: &str) -> (String, Option<&str>) {
    let mut source = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(':') {
        let path = before.trim_end_matches('\\');
        let escapes = before.len() - path.len();
        source += path;
        source.extend(std::iter::repeat_n('\\', escapes / 2));
        if escapes % 2 == 0 {
            return (source, Some(behind));
        }
        source.push(':');
        rest = behind;
    }
    (source + rest, None)
}
