//! A folder beside its place, until what is to be in it has come.
//!
//! As with a file's [destination](crate::destination), the path is looked up once and what is done
//! later is done to what was found then. Folders in it may have been closed by the modes that a
//! guest gave them; they are ours, and are opened to be removed. What a process that was killed has
//! left is removed by the next copy to the same directory.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use metaservice_private::{PartialDirectory, sweep};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, renameat};

use super::place;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A new folder. Dropped before it is kept, it is gone with all that is in it.
#[derive(Debug)]
pub(super) struct Beside {
    partial: PartialDirectory,
    place: OsString,
}

impl Beside {
    /// Makes a folder that nobody else can enter, beside `target`.
    pub(super) fn make(target: &Path) -> io::Result<Self> {
        let parent = openat(CWD, place::parent(target), FOLDER, Mode::empty())?;
        let place = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        sweep(parent.as_fd());
        Ok(Self { partial: PartialDirectory::new(parent)?, place })
    }

    /// The folder, to be filled.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        self.partial.directory().try_clone_to_owned()
    }

    /// Puts it in its place.
    pub(super) fn keep(self) -> io::Result<()> {
        self.partial.keep(&self.place)
    }

    /// Puts the one thing that is in it in its place.
    pub(super) fn keep_content(self) -> io::Result<()> {
        let folder = self.partial.directory();
        let single = Dir::read_from(folder)?.map(|entry| Ok(entry?.file_name().to_owned())).find(
            |name: &io::Result<_>| {
                name.as_ref()
                    .map_or(true, |name| name.as_c_str() != c"." && name.as_c_str() != c"..")
            },
        );
        let single = single.ok_or_else(|| io::Error::other("the archive is empty"))??;
        Ok(renameat(folder, &single, self.partial.parent(), &self.place)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    /// From now on modes count for this thread, whoever it is.
    fn be_nobody_special() {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
    }

    #[test]
    fn closed_folders_are_removed_too() {
        be_nobody_special();
        let here = tempfile::tempdir().unwrap();
        let beside = Beside::make(&here.path().join("to")).unwrap();
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
        assert!(std::fs::remove_dir_all(&made).is_err(), "modes do not count here");
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
            let beside = Beside::make(&at("asked/new")).unwrap();
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
