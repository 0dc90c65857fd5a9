//! The destination of a copy, and the effect of an existing directory.

use std::path::{Path, PathBuf};

use super::error::PlaceError;
use crate::output::Named;
pub(crate) use crate::output::parent;

/// The name of the copy in a directory. `None` for the content of a directory (`DIRECTORY/.`), and
/// for paths without a name, such as `/` and `..`.
#[must_use]
pub fn name(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(last, "" | "." | "..")).then_some(last)
}

/// The path on the host for a copy of `name` to `destination`.
pub(super) fn target(
    destination: &Path,
    name: Option<&str>,
    directory: bool,
) -> Result<(PathBuf, Named), PlaceError> {
    let shown = || destination.to_owned();
    let (target, named) = match name {
        _ if !destination.is_dir() => (destination.to_owned(), Named::ByUser),
        Some(name) => (destination.join(name), Named::ByGuest),
        None if directory => (destination.to_owned(), Named::ByUser),
        None => return Err(PlaceError::NoName(shown())),
    };
    let slash = destination.as_os_str().as_encoded_bytes().ends_with(b"/");
    if slash && !directory && !destination.is_dir() {
        return Err(PlaceError::NoDirectory(shown()));
    }
    check(&target, named, directory)?;
    Ok((target, named))
}

/// Checks a path on the host that a copy gets. Unless the user wrote all of it, a link there is
/// not followed: a guest may have created it, by an earlier copy or in a volume.
pub(crate) fn check(target: &Path, named: Named, directory: bool) -> Result<(), PlaceError> {
    let found = std::fs::symlink_metadata(target);
    let link = found.as_ref().is_ok_and(std::fs::Metadata::is_symlink);
    if directory && link && named != Named::ByUser {
        return Err(PlaceError::Link(target.to_owned()));
    }
    if directory && found.is_ok() && !target.is_dir() {
        return Err(PlaceError::NotADirectory(target.to_owned()));
    }
    let parent = parent(target);
    if parent.is_dir() { Ok(()) } else { Err(PlaceError::NoDirectory(parent.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_copied_by_its_content() {
        assert_eq!(name("/a/b"), Some("b"));
        assert_eq!(name("/a/b/"), Some("b"));
        assert_eq!(name("b"), Some("b"));
        for nameless in ["/", "/a/.", ".", "..", "/a/..", ""] {
            assert_eq!(name(nameless), None, "{nameless}");
        }
    }

    #[test]
    fn an_existing_directory_gets_the_copy() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        std::fs::write(here.join("file"), "").unwrap();
        let go = |to: &str, name, directory| {
            target(&here.join(to), name, directory).ok().map(|(path, _)| path)
        };
        assert_eq!(go("", Some("x"), false), Some(here.join("x")));
        assert_eq!(go("", Some("x"), true), Some(here.join("x")));
        assert_eq!(go("", None, true), Some(here.join("")));
        assert_eq!(go("", None, false), None);
        assert_eq!(go("new", Some("x"), false), Some(here.join("new")));
        assert_eq!(go("new/", Some("x"), false), None);
        assert_eq!(go("new/", Some("x"), true), Some(here.join("new/")));
        assert_eq!(go("file", Some("x"), false), Some(here.join("file")));
        assert_eq!(go("file", Some("x"), true), None);
        assert_eq!(go("no/new", Some("x"), false), None);
        // A link that a guest may have created: a file replaces it, a directory does not follow it.
        std::os::unix::fs::symlink("/", here.join("link")).unwrap();
        assert_eq!(go("", Some("link"), false), Some(here.join("link")));
        assert_eq!(go("", Some("link"), true), None);
        assert_eq!(go("link", None, true), Some(here.join("link")));
    }
}
