//! Files of the host that the guest gets before the command starts.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::artifact::split_source;
use crate::copy::{GuestTarget, How, place};
use crate::spec::CopyInSpec;

/// A file or a directory to copy in, and its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyIn {
    /// The path on the host, as it was written.
    pub(crate) from: PathBuf,
    pub(crate) to: GuestTarget,
}

/// Why a description of what to copy in is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCopyIn {
    /// The path on the host is empty.
    #[error("there is no path before the colon")]
    NoSource,
    /// The path in the guest is empty.
    #[error("there is nothing after the colon")]
    NoDestination,
    /// A path has a zero byte.
    #[error("a path cannot contain a zero byte")]
    ZeroByte,
    /// The path on the host cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The path on the host is a socket, a FIFO or a device.
    #[error("{} is neither a file, a directory nor a link", .0.display())]
    Kind(PathBuf),
}

impl CopyIn {
    /// The path on the host, as it was written.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.from
    }

    /// The path in the guest.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.to.path
    }

    /// Checks a description. `workdir` is that of the job. Blocks.
    pub(super) fn resolve(spec: &CopyInSpec, workdir: Option<&str>) -> Result<Self, InvalidCopyIn> {
        let CopyInSpec { from, to } = spec;
        if from.as_os_str().is_empty() {
            return Err(InvalidCopyIn::NoSource);
        }
        match to.as_deref() {
            Some("") => return Err(InvalidCopyIn::NoDestination),
            Some(to) if to.contains('\0') => return Err(InvalidCopyIn::ZeroByte),
            _ => {}
        }
        let text = from.to_string_lossy();
        let follow = How::default().follows(&text);
        let inspect = if follow { std::fs::metadata } else { std::fs::symlink_metadata };
        let found =
            inspect(from).map_err(|cause| InvalidCopyIn::Read { path: from.clone(), cause })?;
        if !(found.is_file() || found.is_dir() || found.is_symlink()) {
            return Err(InvalidCopyIn::Kind(from.clone()));
        }
        let to = match (to, place::name(&text)) {
            (Some(to), _) => GuestTarget::path(to, from),
            (None, None) => GuestTarget::exactly(workdir.unwrap_or(".")),
            (None, Some(name)) => {
                let workdir = workdir.map_or(".", |workdir| workdir.trim_end_matches('/'));
                GuestTarget::exactly(format!("{workdir}/{name}"))
            }
        };
        Ok(Self { from: from.clone(), to })
    }
}

impl FromStr for CopyInSpec {
    type Err = std::convert::Infallible;

    /// Reads `HOST[:GUEST]`. A colon that belongs to the path of the host has a backslash before
    /// it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = split_source(text);
        Ok(Self { from: from.into(), to: to.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, workdir: Option<&str>) -> Result<(String, Option<String>), String> {
        let Ok(spec) = text.parse::<CopyInSpec>();
        let resolved = CopyIn::resolve(&spec, workdir).map_err(|error| error.to_string())?;
        Ok((resolved.to.path, resolved.to.name))
    }

    #[test]
    fn a_copy_goes_where_the_description_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        let is = |path: &str, name: Option<&str>| Ok((path.to_owned(), name.map(str::to_owned)));
        assert_eq!(resolved(file, None), is("./file", None));
        assert_eq!(resolved(file, Some("/src/")), is("/src/file", None));
        assert_eq!(resolved(file, Some("/")), is("/file", None));
        assert_eq!(resolved(&format!("{file}:/opt"), Some("/src")), is("/opt", Some("file")));
        let here = directory.path().display();
        assert_eq!(resolved(&format!("{here}/."), Some("/src")), is("/src", None));
        assert_eq!(resolved(".", None), is(".", None));
        assert_eq!(resolved(".:/opt", None), is("/opt", None));
    }

    #[test]
    fn a_source_exists_and_can_be_copied() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let colon = directory.path().join("a:b");
        std::fs::write(colon, "").unwrap();
        assert_eq!(resolved(&format!(r"{here}/a\:b"), None), Ok(("./a:b".to_owned(), None)));
        std::os::unix::fs::symlink("nothing", directory.path().join("link")).unwrap();
        assert!(resolved(&format!("{here}/link"), None).is_ok(), "a link is copied as itself");
        let refused = |text: &str| resolved(text, None).unwrap_err();
        assert_eq!(refused(&format!("{here}/none:/x")), format!("cannot read {here}/none"));
        assert_eq!(refused(&format!("{here}/link/")), format!("cannot read {here}/link/"));
        assert!(refused("/dev/null").contains("neither a file"));
        assert_eq!(refused(":/x"), "there is no path before the colon");
        assert_eq!(refused(&format!("{here}:")), "there is nothing after the colon");
    }
}
