//! The directory that holds a copy until it is complete. It is beside the copy's destination.
//!
//! As for a file's destination, the path is looked up once, and the directory is held open. The
//! guest may have given the directories in it modes that deny access. They belong to this user, so
//! their modes are changed before they are removed. The next copy to the same directory removes the
//! rest that a killed process has left.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use metaservice_private::{PartialDirectory, sweep};
use rustix::fs::{Dir, renameat};

use crate::output::{Named, open_parent};

/// A new directory. Dropping it before it is kept removes it with its content.
#[derive(Debug)]
pub(super) struct Beside {
    partial: PartialDirectory,
    place: OsString,
}

impl Beside {
    /// Creates a directory beside `target`, which only this user can enter.
    pub(super) fn make(target: &Path, named: Named) -> io::Result<Self> {
        let parent = open_parent(target, named)?;
        let place = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        sweep(parent.as_fd());
        Ok(Self { partial: PartialDirectory::new(parent)?, place })
    }

    /// Opens the directory, to write into it.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        self.partial.directory().try_clone_to_owned()
    }

    /// Moves it to its destination.
    pub(super) fn keep(self) -> io::Result<()> {
        self.partial.keep(&self.place)
    }

    /// Moves its only entry to the destination.
    pub(super) fn keep_content(self) -> io::Result<()> {
        let directory = self.partial.directory();
        let single = Dir::read_from(directory)?
            .map(|entry| Ok(entry?.file_name().to_owned()))
            .find(|name: &io::Result<_>| {
                name.as_ref()
                    .map_or(true, |name| name.as_c_str() != c"." && name.as_c_str() != c"..")
            });
        let single = single.ok_or_else(|| io::Error::other("the archive is empty"))??;
        Ok(renameat(directory, &single, self.partial.parent(), &self.place)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    /// Makes modes apply to this thread, also if it is root.
    fn drop_privileges() {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
    }

    #[test]
    fn closed_directories_are_removed_too() {
        drop_privileges();
        let here = tempfile::tempdir().unwrap();
        let beside = Beside::make(&here.path().join("to"), Named::ByUser).unwrap();
        let made = std::fs::read_dir(here.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::create_dir_all(made.join("a/b")).unwrap();
        for name in ["file", "a/file", "a/b/file"] {
            std::fs::write(made.join(name), "content").unwrap();
        }
        std::os::unix::fs::symlink("/", made.join("a/link")).unwrap();
        for (name, mode) in [("a/b", 0), ("a", 0o555), ("", 0o111)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(made.join(name), mode).unwrap();
        }
        assert!(std::fs::remove_dir_all(&made).is_err(), "modes have no effect here");
        drop(beside);
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_parent_that_is_swapped_for_a_link_leads_nothing_astray() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        std::fs::create_dir(at("asked")).unwrap();
        std::fs::create_dir(at("private")).unwrap();
        for keep in [true, false] {
            let beside = Beside::make(&at("asked/new"), Named::ByUser).unwrap();
            std::fs::rename(at("asked"), at("moved")).unwrap();
            std::os::unix::fs::symlink(at("private"), at("asked")).unwrap();
            if keep {
                beside.keep().unwrap();
            } else {
                drop(beside);
            }
            std::fs::remove_file(at("asked")).unwrap();
            std::fs::rename(at("moved"), at("asked")).unwrap();
        }
        assert_eq!(std::fs::read_dir(at("private")).unwrap().count(), 0);
        let names = std::fs::read_dir(at("asked")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["new"]);
    }
}
