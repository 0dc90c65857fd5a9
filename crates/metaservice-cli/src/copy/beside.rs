//! A folder beside its place, until what is to be in it has come.
//!
//! As with a file's [destination](crate::destination), the path is looked up once and what is done
//! later is done to what was found then. Folders in it may have been closed by the modes that a
//! guest gave them; they are ours, and are opened to be removed.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::place;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A new folder. Dropped before it is kept, it is gone with all that is in it.
#[derive(Debug)]
pub(super) struct Beside {
    parent: OwnedFd,
    /// Its name until it is kept.
    name: CString,
    place: OsString,
    kept: bool,
}

impl Beside {
    /// Makes a folder that nobody else can enter, beside `target`.
    pub(super) fn make(target: &Path) -> io::Result<Self> {
        let parent = openat(CWD, place::parent(target), FOLDER, Mode::empty())?;
        let place = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let mut name = OsString::new();
        // The names are drawn there; the folder is made in the one that was opened.
        let made = tempfile::Builder::new().prefix(".metaservice-").make_in("", |drawn| {
            name = drawn.file_name().map(OsStr::to_owned).unwrap_or_default();
            Ok(mkdirat(&parent, &name, Mode::RWXU)?)
        })?;
        // It is removed by its parent, not by this path.
        drop(made.into_temp_path().keep());
        Ok(Self { parent, name: CString::new(name.as_bytes())?, place, kept: false })
    }

    /// The folder, to be filled.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.parent, &self.name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// Puts it in its place.
    pub(super) fn keep(mut self) -> io::Result<()> {
        renameat(&self.parent, &self.name, &self.parent, &self.place)?;
        self.kept = true;
        Ok(())
    }

    /// Puts the one thing that is in it in its place.
    pub(super) fn keep_content(self) -> io::Result<()> {
        let folder = self.open()?;
        let single = names(&folder)?.into_iter().next();
        let single = single.ok_or_else(|| io::Error::other("the archive is empty"))?;
        Ok(renameat(&folder, &single, &self.parent, &self.place)?)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.kept {
            // Somebody else may have removed it.
            let _ = remove(&self.parent, &self.name);
        }
    }
}

/// Removes whatever has this name. An archive's folders are no deeper than descriptors allow.
fn remove(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return Ok(outcome?),
    }
    chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    let folder = openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    for inner in names(&folder)? {
        remove(&folder, &inner)?;
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
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
