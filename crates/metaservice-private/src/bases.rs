//! The base directories of a user: home, cache, data, state and temporary files.
//!
//! A directory that a variable names wrongly is an error, or the next candidate is used. The home
//! directory and the directory for temporary files are never made.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::error::PrivateError;

/// The home directory of this user: `HOME`, or the one in the password database. An existing one is
/// preferred.
#[must_use]
pub fn home() -> Option<PathBuf> {
    home_or(env::var_os("HOME"), home_in_database, Path::is_dir)
}

/// As [`home`]. A directory that belongs to this user is preferred: after `sudo`, `HOME` may be the
/// home of another user.
fn own_home() -> Option<PathBuf> {
    let own = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    };
    home_or(env::var_os("HOME"), home_in_database, own)
}

fn home_in_database() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.dir)
}

fn home_or(
    named: Option<OsString>,
    in_database: impl FnOnce() -> Option<PathBuf>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    if named.as_ref().is_some_and(|path| exists(path)) {
        return named;
    }
    let known = in_database().filter(|path| path.is_absolute());
    match known {
        Some(known) if named.is_none() || exists(&known) => Some(known),
        _ => named,
    }
}

/// A base directory of the XDG specification.
///
/// ```
/// use metaservice_private::bases::BaseDirectory;
///
/// let cache = BaseDirectory::Home("/home/user".into(), &[".cache"]);
/// assert_eq!(cache.path(), std::path::Path::new("/home/user/.cache"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseDirectory {
    /// The one that a variable names. The specification says that programs make it.
    Named(PathBuf),
    /// Directories below the user's home. The home itself is not made.
    Home(PathBuf, &'static [&'static str]),
}

impl BaseDirectory {
    /// `$XDG_CACHE_HOME`, or `~/.cache`.
    #[must_use]
    pub fn cache() -> Option<Self> {
        Self::of("XDG_CACHE_HOME", home, &[".cache"])
    }

    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    #[must_use]
    pub fn config() -> Option<Self> {
        Self::of("XDG_CONFIG_HOME", home, &[".config"])
    }

    /// `$XDG_DATA_HOME`, or `~/.local/share`.
    #[must_use]
    pub fn data() -> Option<Self> {
        Self::of("XDG_DATA_HOME", home, &[".local", "share"])
    }

    /// `$XDG_STATE_HOME`, or `~/.local/state`. A home directory that belongs to this user is
    /// preferred: after `sudo`, `HOME` may be the home of another user.
    #[must_use]
    pub fn state() -> Option<Self> {
        Self::of("XDG_STATE_HOME", own_home, &[".local", "state"])
    }

    fn of(
        variable: &str,
        home: fn() -> Option<PathBuf>,
        below: &'static [&'static str],
    ) -> Option<Self> {
        let named = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.map(Self::Named).or_else(|| Some(Self::Home(home()?, below)))
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Named(path) => path.clone(),
            Self::Home(home, below) => {
                below.iter().fold(home.clone(), |path, name| path.join(name))
            }
        }
    }

    /// Makes the directory if it does not exist.
    ///
    /// # Errors
    /// It cannot be made, or the home directory does not exist.
    pub fn make(&self) -> Result<(), PrivateError> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        match self {
            Self::Named(path) => builder
                .recursive(true)
                .create(path)
                .map_err(|source| PrivateError::Io { path: path.clone(), source }),
            Self::Home(home, below) => {
                let mut path = home.clone();
                for name in *below {
                    path.push(name);
                    match builder.create(&path) {
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                        Err(source) => return Err(PrivateError::Io { path, source }),
                        Ok(()) => {}
                    }
                }
                Ok(())
            }
        }
    }
}

/// The directory for temporary files: `TMPDIR`, or `/tmp` if it is not set.
///
/// # Errors
/// It is not a directory in which this user can make files.
pub fn temporary() -> Result<PathBuf, TemporaryDirectoryError> {
    temporary_of(env::var_os("TMPDIR"))
}

fn temporary_of(named: Option<OsString>) -> Result<PathBuf, TemporaryDirectoryError> {
    let (path, named) = match named.filter(|value| !value.is_empty()) {
        Some(value) => (PathBuf::from(value), true),
        None => (PathBuf::from("/tmp"), false),
    };
    let fit = || {
        access(&path, Access::WRITE_OK | Access::EXEC_OK)?;
        if !path.metadata()?.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        std::path::absolute(&path)
    };
    fit().map_err(|source| TemporaryDirectoryError { path: path.clone(), named, source })
}

/// As [`temporary`], for files with names: other users cannot replace them.
///
/// # Errors
/// As [`temporary`], or other users can replace files in the directory.
pub fn temporary_for_names() -> Result<PathBuf, NamedFilesError> {
    let path = temporary()?;
    if protects_names(&path) { Ok(path) } else { Err(NamedFilesError::Shared(path)) }
}

/// Whether other users cannot replace files in a directory. If they can write it, a sticky bit
/// protects the files.
fn protects_names(directory: &Path) -> bool {
    directory.metadata().is_ok_and(|metadata| {
        let trusted = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
        trusted && (metadata.mode() & 0o022 == 0 || metadata.mode() & 0o1000 != 0)
    })
}

/// The directory for temporary files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{path} is not a directory for temporary files{}", if *named { " (TMPDIR)" } else { "" })]
pub struct TemporaryDirectoryError {
    /// The directory.
    pub path: PathBuf,
    /// Whether `TMPDIR` names the directory.
    pub named: bool,
    /// The error of the system.
    #[source]
    pub source: std::io::Error,
}

/// There is no directory for temporary files with names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedFilesError {
    /// The directory for temporary files cannot be used.
    #[error(transparent)]
    Temporary(#[from] TemporaryDirectoryError),
    /// Other users can replace files in it.
    #[error("other users can replace what is in {0}: set TMPDIR")]
    Shared(PathBuf),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The home of a user with `HOME=named`, if these directories exist.
    fn home_of(named: Option<&str>, existing: &[&str]) -> Option<PathBuf> {
        let in_database = || Some(PathBuf::from("/home/known"));
        let exists = |path: &Path| existing.iter().any(|existing| path == Path::new(existing));
        home_or(named.map(OsString::from), in_database, exists)
    }

    #[test]
    fn an_existing_home_is_preferred() {
        let both = ["/home/named", "/home/known"];
        for (named, existing, home) in [
            (Some("/home/named"), &both[..], "/home/named"),
            (Some("/home/named"), &both[1..], "/home/known"),
            (Some("/home/named"), &[], "/home/named"),
            (None, &[], "/home/known"),
        ] {
            assert_eq!(home_of(named, existing), Some(home.into()), "{named:?} {existing:?}");
        }
    }

    #[test]
    fn a_relative_home_is_ignored() {
        for named in ["relative", ""] {
            assert_eq!(home_of(Some(named), &["relative"]), Some("/home/known".into()));
        }
        assert_eq!(home_or(None, || Some("".into()), |_| true), None);
    }

    #[test]
    fn a_base_directory_is_made_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let base = BaseDirectory::Home(home.path().to_owned(), &[".local", "share"]);
        base.make().unwrap();
        base.make().unwrap();
        let made = home.path().join(".local/share").metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_missing_home_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let home = parent.path().join("none");
        let base = BaseDirectory::Home(home.clone(), &[".cache"]);
        assert!(matches!(base.make(), Err(PrivateError::Io { .. })));
        assert!(!home.exists());
    }

    #[test]
    fn a_missing_temporary_directory_is_an_error_and_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("none");
        let error = temporary_of(Some(path.clone().into())).unwrap_err();
        assert!(error.to_string().ends_with("(TMPDIR)"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_not_a_temporary_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(temporary_of(Some(file.path().into())).is_err());
    }

    #[test]
    fn the_temporary_directory_is_absolute_and_tmp_by_default() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(temporary_of(Some(directory.path().into())).unwrap(), directory.path());
        assert!(temporary_of(Some(".".into())).unwrap().is_absolute());
        assert_eq!(temporary_of(Some("".into())).unwrap(), Path::new("/tmp"));
    }

    fn with_mode(mode: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(directory.path(), permissions).unwrap();
        directory
    }

    #[test]
    fn a_sticky_bit_protects_names_in_a_shared_directory() {
        for (mode, protected) in [(0o755, true), (0o1777, true), (0o777, false), (0o770, false)] {
            assert_eq!(protects_names(with_mode(mode).path()), protected, "{mode:o}");
        }
    }
}
