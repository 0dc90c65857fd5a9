//! The directories that belong to a user before any program runs.
//!
//! A directory that an environment variable names is never made up: a wrong name is an error or a
//! reason to take the next one, and not a directory `/nonexistent` of root's.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::directory::{Directory, PrivateError, is_private};

/// This user's home directory: `HOME`, or else what the password database says. One that is there is
/// preferred.
#[must_use]
pub fn home() -> Option<PathBuf> {
    let known = || {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
        Some(user.dir)
    };
    home_or(env::var_os("HOME"), known, Path::is_dir)
}

fn home_or(
    named: Option<OsString>,
    known: impl FnOnce() -> Option<PathBuf>,
    is_there: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    if named.as_ref().is_some_and(|path| is_there(path)) {
        return named;
    }
    let known = known().filter(|path| path.is_absolute());
    match known {
        Some(known) if named.is_none() || is_there(&known) => Some(known),
        _ => named,
    }
}

/// A base directory of the XDG specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A variable names it. It is made when it is needed, as the specification has it.
    Named(PathBuf),
    /// Directories below the user's home. The home itself is never made.
    Home(PathBuf, &'static [&'static str]),
}

impl Base {
    /// `$XDG_CACHE_HOME`, or `~/.cache`.
    #[must_use]
    pub fn cache() -> Option<Self> {
        Self::of("XDG_CACHE_HOME", &[".cache"])
    }

    /// `$XDG_DATA_HOME`, or `~/.local/share`.
    #[must_use]
    pub fn data() -> Option<Self> {
        Self::of("XDG_DATA_HOME", &[".local", "share"])
    }

    fn of(variable: &str, below: &'static [&'static str]) -> Option<Self> {
        let named = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.map(Self::Named).or_else(|| Some(Self::Home(home()?, below)))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Named(path) => path.clone(),
            Self::Home(home, below) => {
                below.iter().fold(home.clone(), |path, name| path.join(name))
            }
        }
    }

    /// Makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be made. A home that is not there is not made.
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

/// The directory for temporary files: `TMPDIR`, or else `/tmp`.
///
/// # Errors
/// When what `TMPDIR` names is no directory in which files can be made.
pub fn temporary() -> Result<PathBuf, UnfitTemporary> {
    temporary_of(env::var_os("TMPDIR"))
}

fn temporary_of(named: Option<OsString>) -> Result<PathBuf, UnfitTemporary> {
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
    fit().map_err(|source| UnfitTemporary { path: path.clone(), named, source })
}

/// As [`temporary`], for files that have names: nobody else can put others in their place.
///
/// # Errors
/// When there is no such directory.
pub fn temporary_for_names() -> Result<PathBuf, RuntimeError> {
    let path = temporary()?;
    if keeps_names(&path) { Ok(path) } else { Err(RuntimeError::Shared(path)) }
}

/// In a directory that others can write, only a sticky bit keeps a name from being taken over.
fn keeps_names(directory: &Path) -> bool {
    directory.metadata().is_ok_and(|metadata| {
        let trusted = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
        trusted && (metadata.mode() & 0o022 == 0 || metadata.mode() & 0o1000 != 0)
    })
}

/// The directory for temporary files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not a directory for temporary files{}", if *named { " (TMPDIR)" } else { "" })]
pub struct UnfitTemporary {
    /// The directory.
    pub path: PathBuf,
    /// Whether `TMPDIR` names it.
    pub named: bool,
    /// What is wrong with it.
    #[source]
    pub source: std::io::Error,
}

/// This user's runtime directory for the program `name`: in `XDG_RUNTIME_DIR`, where that is a
/// directory of this user's; else `name-UID` in the directory for temporary files.
///
/// # Errors
/// When neither can be had, or somebody else was there first.
pub fn runtime(name: &str) -> Result<Directory, RuntimeError> {
    if let Some(base) = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && is_runtime(&base)
    {
        return Ok(Directory::open_or_make(&base.join(name))?.0);
    }
    let user = geteuid().as_raw();
    let base = temporary_for_names()?;
    Ok(Directory::open_or_make(&base.join(format!("{name}-{user}")))?.0)
}

/// `sudo` and `su` leave the variable of another user; a service may have none.
fn is_runtime(base: &Path) -> bool {
    base.as_os_str().as_bytes().starts_with(b"/")
        && base.metadata().is_ok_and(|metadata| metadata.is_dir() && is_private(&metadata))
        && access(base, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// There is no runtime directory.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The directory for temporary files cannot be used.
    #[error(transparent)]
    Temporary(#[from] UnfitTemporary),
    /// Others can replace what is in it.
    #[error("other users can replace what is in {0}: set XDG_RUNTIME_DIR or TMPDIR")]
    Shared(PathBuf),
    /// It is not this user's alone.
    #[error(transparent)]
    Private(#[from] PrivateError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_is_absolute_or_comes_from_the_password_database() {
        let found = |named: Option<&str>, there: &[&str]| {
            let known = || Some(PathBuf::from("/home/known"));
            let is_there = |path: &Path| there.iter().any(|there| path == Path::new(there));
            home_or(named.map(OsString::from), known, is_there)
        };
        let both = ["/home/named", "/home/known"];
        for (named, there, home) in [
            (Some("/home/named"), &both[..], "/home/named"),
            (Some("/home/named"), &both[1..], "/home/known"),
            (Some("/home/named"), &[], "/home/named"),
            (Some("relative"), &both, "/home/known"),
            (Some(""), &both, "/home/known"),
            (None, &[], "/home/known"),
        ] {
            assert_eq!(found(named, there), Some(PathBuf::from(home)), "{named:?} {there:?}");
        }
        assert_eq!(home_or(None, || Some("".into()), |_| true), None);
    }

    #[test]
    fn a_home_that_is_not_there_is_not_made_and_a_cache_in_one_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("none");
        let base = Base::Home(home.clone(), &[".local", "share"]);
        assert!(matches!(base.make(), Err(PrivateError::Io { .. })));
        assert!(!home.exists());
        std::fs::create_dir(&home).unwrap();
        base.make().unwrap();
        base.make().unwrap();
        let made = home.join(".local/share").metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_wrong_temporary_directory_is_said_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none");
        let unfit = temporary_of(Some(path.clone().into())).unwrap_err();
        assert!(unfit.to_string().ends_with("(TMPDIR)"), "{unfit}");
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(temporary_of(Some(path.into())).is_err());
        assert!(temporary_of(Some(".".into())).unwrap().is_absolute());
        assert_eq!(temporary_of(Some(folder.path().into())).unwrap(), folder.path());
        assert_eq!(temporary_of(Some("".into())).unwrap(), Path::new("/tmp"));
    }

    #[test]
    fn a_runtime_directory_is_this_users() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_runtime(folder.path()));
        assert!(!is_runtime(&folder.path().join("none")));
        assert!(!is_runtime(Path::new("relative")));
        for (mode, runtime, names) in [
            (0o777, false, false),
            (0o1777, false, true),
            (0o770, false, false),
            (0o755, true, true),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).unwrap();
            assert_eq!(is_runtime(folder.path()), runtime, "{mode:o}");
            assert_eq!(keeps_names(folder.path()), names, "{mode:o}");
        }
    }
}
