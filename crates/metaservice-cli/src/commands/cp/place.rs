//! The source and the destination of a copy, and the effect of an existing directory.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use metaservice_sandbox::output::Named;

/// A source or a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `JOB:PATH`.
    Guest { job: String, path: String },
    /// A path of the host.
    Host(PathBuf),
    /// `-`: a tar archive on standard input or output.
    Stream,
}

impl Place {
    /// Parses `JOB:PATH`, a path or `-`. A path of the host with a colon begins with `/` or `.`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "the source or the destination is empty");
        if text == "-" {
            return Ok(Self::Stream);
        }
        match text.split_once(':') {
            Some((job, path)) if !text.starts_with(['/', '.']) && !job.contains('/') => {
                ensure!(!job.is_empty() && !path.is_empty(), "{text:?} is not JOB:PATH");
                Ok(Self::Guest { job: job.to_owned(), path: path.to_owned() })
            }
            _ => Ok(Self::Host(text.into())),
        }
    }
}

/// The name of the copy in a directory. `None` for the content of a directory (`DIRECTORY/.`), and
/// for paths without a name, such as `/` and `..`.
pub(crate) fn name(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(last, "" | "." | "..")).then_some(last)
}

/// The path on the host for a copy of `name` to `destination`.
pub(crate) fn target(
    destination: &Path,
    name: Option<&str>,
    directory: bool,
) -> Result<(PathBuf, Named)> {
    let shown = destination.display();
    if destination.is_dir() {
        return match name {
            Some(name) => Ok((unlinked(destination.join(name), directory)?, Named::ByGuest)),
            None if directory => Ok((destination.to_owned(), Named::ByUser)),
            None => bail!("the file has no name in the directory {shown}"),
        };
    }
    let slash = destination.as_os_str().as_encoded_bytes().ends_with(b"/");
    ensure!(directory || !slash, "there is no directory {shown}");
    let existing = std::fs::symlink_metadata(destination).is_ok();
    ensure!(
        !directory || !existing,
        "{shown} exists and is not a directory: a directory cannot be copied to it"
    );
    let parent = parent(destination);
    ensure!(parent.is_dir(), "there is no directory {}", parent.display());
    Ok((destination.to_owned(), Named::ByUser))
}

/// Checks a path whose last name is the guest's. If it is a link, it is not followed: a guest may
/// have created it, by an earlier copy.
fn unlinked(target: PathBuf, directory: bool) -> Result<PathBuf> {
    let link = std::fs::symlink_metadata(&target).is_ok_and(|found| found.is_symlink());
    ensure!(
        !link || !directory,
        "{} is a link, which a directory does not follow: remove it, or name it as the destination",
        target.display()
    );
    Ok(target)
}

/// The directory of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_a_guest_or_here() {
        let guest = |job: &str, path: &str| Place::Guest { job: job.into(), path: path.into() };
        assert_eq!(Place::parse("a:/b:c").unwrap(), guest("a", "/b:c"));
        assert_eq!(Place::parse("a:b").unwrap(), guest("a", "b"));
        for host in ["./a:b", "/a:b", "a", "x/a:b", "../a:b"] {
            assert_eq!(Place::parse(host).unwrap(), Place::Host(host.into()), "{host}");
        }
        assert_eq!(Place::parse("-").unwrap(), Place::Stream);
        for wrong in ["", ":", "a:", ":b"] {
            assert!(Place::parse(wrong).is_err(), "{wrong:?}");
        }
    }

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
