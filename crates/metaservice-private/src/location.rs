//! Where a program keeps its files: in the user's base directories, or at a given path.

use std::io;
use std::path::{Path, PathBuf};

use crate::bases::BaseDirectory;
use crate::directory::Directory;
use crate::error::PrivateError;

/// The name of this program's directory in a base directory.
const PROGRAM: &str = "metaservice";

/// A directory that is opened, and created if necessary, when it is needed.
///
/// ```
/// use metaservice_private::Location;
///
/// let parent = tempfile::tempdir()?;
/// let directory = Location::At(parent.path().join("images")).open()?;
/// assert!(directory.names()?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// `metaservice/NAME` in the user's cache directory.
    Cache(&'static str),
    /// `metaservice/NAME` in the user's data directory.
    Data(&'static str),
    /// `metaservice/NAME` in the user's state directory. Other users can not even read it.
    State(&'static str),
    /// Any path.
    At(PathBuf),
}

impl Location {
    /// The path. `None` if the user has no home directory and no variable names the base.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        let (base, name) = match self {
            Self::Cache(name) => (BaseDirectory::cache()?, name),
            Self::Data(name) => (BaseDirectory::data()?, name),
            Self::State(name) => (BaseDirectory::state()?, name),
            Self::At(path) => return Some(path.clone()),
        };
        Some(base.path().join(PROGRAM).join(name))
    }

    /// Opens the directory, and creates it if necessary.
    ///
    /// # Errors
    /// If the user has no home directory, if it cannot be created, or if other users can write it.
    pub fn open(&self) -> Result<Directory, PrivateError> {
        let missing = |path: &Path, why: &str| PrivateError::Io {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, why),
        };
        let (base, name) = match self {
            Self::Cache(name) => (BaseDirectory::cache(), name),
            Self::Data(name) => (BaseDirectory::data(), name),
            Self::State(name) => (BaseDirectory::state(), name),
            Self::At(path) => {
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| missing(path, "it has no name"))?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                BaseDirectory::Named(parent.to_owned()).make()?;
                return Directory::within(parent, &[name]);
            }
        };
        let homeless = || missing(Path::new(PROGRAM), "this user has no home directory");
        let base = base.ok_or_else(homeless)?;
        base.make()?;
        let directory = Directory::within(&base.path(), &[PROGRAM, name])?;
        if matches!(self, Self::State(_)) {
            directory.close_to_others()?;
        }
        Ok(directory)
    }
}
