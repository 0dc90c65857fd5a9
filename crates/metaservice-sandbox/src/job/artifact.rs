//! Artifacts: files and directories of the guest that the host fetches when the command has ended.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::glob::{self, InvalidGlob, Pattern};
use crate::copy::place;
use crate::output::Named;
use crate::spec::ArtifactSpec;

/// A file or a directory to fetch and where it goes, or a pattern for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub(crate) kind: ArtifactSource,
    /// The path in the guest, as it was written.
    pub(crate) source: String,
    /// The path on the host; for a pattern, the directory.
    pub(crate) destination: PathBuf,
    /// Where the destination comes from.
    pub(crate) named: Named,
}

/// What the path in the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArtifactSource {
    /// A file or a directory.
    Path,
    /// A pattern for several.
    Glob(Box<Pattern>),
}

impl ArtifactSource {
    pub(super) fn is_glob(&self) -> bool {
        matches!(self, Self::Glob(_))
    }
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
    /// The path in the guest has no name that the artifact could have on the host.
    #[error("{0} has no name for the host: write {0}:DEST")]
    NoName(String),
    /// The pattern is wrong.
    #[error(transparent)]
    Glob(#[from] InvalidGlob),
    /// The destination is empty.
    #[error("there is nothing after the colon")]
    NoDestination,
    /// The destination is standard output.
    #[error("an artifact cannot go to standard output: the log does")]
    StandardOutput,
    /// The destination of a pattern is a file.
    #[error("{} is not a directory, which a pattern needs", .0.display())]
    NotADirectory(PathBuf),
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

    /// The path on the host; for a pattern, the directory.
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
        match spec.to.as_deref().map(Path::to_str) {
            Some(Some("")) => return Err(InvalidArtifact::NoDestination),
            Some(Some("-")) => return Err(InvalidArtifact::StandardOutput),
            _ => {}
        }
        if glob::is_pattern(&source) {
            return Self::pattern(source, spec.to.as_deref());
        }
        let name = place::name(&source);
        let (destination, named) = match (spec.to.as_deref(), name) {
            (None, Some(name)) => (PathBuf::from(name), Named::ByGuest),
            (Some(path), Some(name)) if is_directory(path) => (path.join(name), Named::ByGuest),
            (Some(path), _) => (path.to_owned(), Named::ByUser),
            (None, None) => return Err(InvalidArtifact::NoName(source)),
        };
        check_parent(&destination)?;
        Ok(Self { kind: ArtifactSource::Path, source, destination, named })
    }

    /// Finds the destination now, before there is a guest that could change the way to it. The
    /// guest writes these directories of the host. Blocks.
    pub(super) fn guard<'a>(self, mut written: impl Iterator<Item = &'a Path>) -> Self {
        let whole = self.named == Named::ByUser && self.destination.is_dir();
        let found = match (whole, self.destination.file_name()) {
            (true, _) | (_, None) => self.destination.canonicalize(),
            (false, Some(name)) => {
                place::parent(&self.destination).canonicalize().map(|parent| parent.join(name))
            }
        };
        // A path that cannot be used is an error where it is opened.
        let destination = found.unwrap_or_else(|_| self.destination.clone());
        if written.any(|directory| destination.starts_with(directory)) {
            Self { destination, named: Named::InVolume, ..self }
        } else {
            Self { destination, ..self }
        }
    }

    /// The directory of a pattern may be new.
    fn pattern(source: String, to: Option<&Path>) -> Result<Self, InvalidArtifact> {
        let kind = ArtifactSource::Glob(Box::new(Pattern::parse(&source)?));
        let destination = to.unwrap_or(Path::new(".")).to_owned();
        let found = std::fs::metadata(&destination);
        if found.is_ok_and(|found| !found.is_dir()) {
            return Err(InvalidArtifact::NotADirectory(destination));
        }
        check_parent(&destination)?;
        Ok(Self { kind, source, destination, named: Named::ByUser })
    }
}

/// Whether a destination is a directory, or is written as one.
fn is_directory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir()
}

fn check_parent(destination: &Path) -> Result<(), InvalidArtifact> {
    let parent = place::parent(destination);
    match parent.is_dir() {
        true => Ok(()),
        false => Err(InvalidArtifact::NoDirectory(parent.to_owned())),
    }
}

impl ArtifactSpec {
    /// Whether the path in the guest is a pattern for several files and directories.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        glob::is_pattern(&self.path)
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
