//! The two ends of a copy as they are written, and what a folder that is there already means.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use metaservice_sandbox::output::Named;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `JOB:PATH`.
    Guest { job: String, path: String },
    /// A path of ours.
    Host(PathBuf),
    /// `-`: a tar archive on standard input or output.
    Stream,
}

impl Place {
    /// Reads `JOB:PATH`, a path or `-`. A path of ours with a colon begins with `/` or `.`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "a place to copy from or to is empty");
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

/// The name that a path's content has in another folder; none for the content of a
/// folder alone (`FOLDER/.`), and for what has no name of its own, as `/` and `..`.
pub(crate) fn name(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(last, "" | "." | "..")).then_some(last)
}

/// Where on the host what is called `name` goes when it is copied to `destination`.
pub(crate) fn target(
    destination: &Path,
    name: Option<&str>,
    folder: bool,
) -> Result<(PathBuf, Named)> {
    let shown = destination.display();
    if destination.is_dir() {
        return match name {
            Some(name) => Ok((unlinked(destination.join(name), folder)?, Named::ByGuest)),
            None if folder => Ok((destination.to_owned(), Named::ByUser)),
            None => bail!("the file has no name for the folder {shown}"),
        };
    }
    let slash = destination.as_os_str().as_encoded_bytes().ends_with(b"/");
    ensure!(folder || !slash, "there is no folder {shown}");
    let existing = std::fs::symlink_metadata(destination).is_ok();
    ensure!(!folder || !existing, "{shown} is there and is no folder: a folder cannot go there");
    let parent = parent(destination);
    ensure!(parent.is_dir(), "there is no folder {}", parent.display());
    Ok((destination.to_owned(), Named::ByUser))
}

/// A place whose last name is not the user's: if it is a link, nothing goes through it. A guest
/// may have made it, by an earlier copy.
fn unlinked(target: PathBuf, folder: bool) -> Result<PathBuf> {
    let link = std::fs::symlink_metadata(&target).is_ok_and(|found| found.is_symlink());
    ensure!(
        !link || !folder,
        "{} is a link, and a folder is not copied through it: remove it, or name it as the destination",
        target.display()
    );
    Ok(target)
}

/// The folder that a path is in.
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
    fn a_folder_that_exists_is_copied_into() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        std::fs::write(here.join("file"), "").unwrap();
        let go = |to: &str, name, folder| {
            target(&here.join(to), name, folder).ok().map(|(path, _)| path)
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
        // A link that a guest may have made: a file replaces it, a folder does not go through it.
        std::os::unix::fs::symlink("/", here.join("link")).unwrap();
        assert_eq!(go("", Some("link"), false), Some(here.join("link")));
        assert_eq!(go("", Some("link"), true), None);
        assert_eq!(go("link", None, true), Some(here.join("link")));
    }
}
