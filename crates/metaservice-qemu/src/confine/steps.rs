//! The steps that build a root directory with only what one machine needs.
//!
//! Owns the list of steps, which is made before the fork. [`enter`](super::enter) takes them.
//! Meanwhile, the files of the host are below [`HOST`].

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::needs::{Exported, Needs};

/// The host's root while the new one is built.
pub(super) const HOST: &CStr = c"/.host";

/// What hidden files look like, and where the directories are that hidden ones look like. Each
/// hidden directory has its own: a guest that found one directory at two places would conclude that
/// it was moved.
pub(super) const NOTHING: &CStr = c"/.nothing";
const EMPTY: &CStr = c"/.empty";

/// The directory of the shared directories: each has its number as its name.
pub(crate) const EXPORT: &str = "/export";

/// One change of the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Creates a directory, unless it exists.
    Directory(CString),
    /// Creates a file to mount over, unless it exists.
    File(CString),
    /// Creates a symbolic link.
    Link { to: CString, at: CString },
    /// Mounts a file or directory of the host, with or without the file systems below it.
    Bind { from: CString, at: CString, below: bool },
    /// Makes a mount read-only, with everything below it.
    ReadOnly(CString),
    /// Covers a file with an empty one, or a directory with this empty one. Both are read-only.
    Hide { at: CString, empty: CString },
    /// Makes a mount, with everything below it, one without devices and set-user-id programs. The
    /// guest may write to it or not.
    Share { at: CString, writable: bool },
}

/// The steps for a machine's QEMU, with the shared directories.
pub(super) fn of_machine(needs: &Needs) -> io::Result<Vec<Step>> {
    let mut steps = Steps::default();
    for path in needs.system() {
        // If `/lib` is a link, it stays one: programs are found under both names.
        if let Ok(to) = fs::read_link(&path)
            && path.parent() == Some(Path::new("/"))
        {
            steps.push(Step::Link { to: text(to)?, at: text(&path)? });
        } else {
            steps.bind(&path.canonicalize()?, &path, path.is_dir(), false)?;
        }
    }
    for path in &needs.devices {
        steps.bind(path, path, false, true)?;
    }
    for path in &needs.reads {
        steps.bind(path, path, path.is_dir(), false)?;
    }
    for path in &needs.writes {
        steps.bind(path, path, path.is_dir(), true)?;
    }
    // QEMU reads attributes of shared files by the names of its own descriptors.
    steps.bind(Path::new("/proc/self/fd"), Path::new("/proc/self/fd"), true, true)?;
    steps.exports(&needs.exported, false)?;
    Ok(steps.0)
}

/// The steps for a root with only the shared directories, as an ordinary user can build it.
pub(super) fn of_exports(exported: &[Option<Exported>]) -> io::Result<Vec<Step>> {
    let mut steps = Steps::default();
    steps.exports(exported, true)?;
    Ok(steps.0)
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn push(&mut self, step: Step) {
        if !self.0.contains(&step) {
            self.0.push(step);
        }
    }

    fn bind(&mut self, from: &Path, at: &Path, directory: bool, writable: bool) -> io::Result<()> {
        let above: Vec<&Path> = at.ancestors().skip(1).collect();
        for directory in above.into_iter().rev().skip(1) {
            self.push(Step::Directory(text(directory)?));
        }
        let place = text(at)?;
        self.push(if directory {
            Step::Directory(place.clone())
        } else {
            Step::File(place.clone())
        });
        self.push(Step::Bind { from: below(HOST, from)?, at: place.clone(), below: directory });
        if !writable {
            self.push(Step::ReadOnly(place));
        }
        Ok(())
    }

    fn hide(&mut self, at: CString) -> io::Result<()> {
        self.push(Step::Directory(EMPTY.into()));
        let empty = below(EMPTY, Path::new(&self.0.len().to_string()))?;
        self.push(Step::Directory(empty.clone()));
        self.push(Step::Hide { at, empty });
        Ok(())
    }

    fn exports(&mut self, exported: &[Option<Exported>], whole: bool) -> io::Result<()> {
        if !exported.is_empty() {
            self.push(Step::Directory(CString::new(EXPORT)?));
        }
        for (number, exported) in exported.iter().enumerate() {
            let place = CString::new(format!("{EXPORT}/{number}"))?;
            match exported {
                Some(exported) => self.export(exported, &place, whole)?,
                None => self.push(Step::Directory(place)),
            }
        }
        Ok(())
    }

    /// With `whole`, the file systems below the directory come with it, as they must for an
    /// ordinary user, and the hidden ones are covered. Without, each file system to show is
    /// mounted.
    fn export(&mut self, exported: &Exported, place: &CStr, whole: bool) -> io::Result<()> {
        let within =
            |path: &Path| below(place, path.strip_prefix(&exported.directory).unwrap_or(path));
        self.push(Step::Directory(place.to_owned()));
        let from = below(HOST, &exported.directory)?;
        self.push(Step::Bind { from, at: place.to_owned(), below: whole });
        for mount in &exported.mounts {
            if !whole && mount.shown {
                let from = below(HOST, &mount.at)?;
                self.push(Step::Bind { from, at: within(&mount.at)?, below: false });
            } else if whole && !mount.shown {
                self.hide(within(&mount.at)?)?;
            }
        }
        for path in &exported.hidden {
            self.hide(within(path)?)?;
        }
        // The mounts that hide something are among those that change.
        self.push(Step::Share { at: place.to_owned(), writable: exported.writable });
        Ok(())
    }
}

fn text(path: impl Into<PathBuf>) -> io::Result<CString> {
    Ok(CString::new(path.into().into_os_string().into_vec())?)
}

/// A path below another root. The path is absolute, or relative to a root.
fn below(root: &CStr, path: &Path) -> io::Result<CString> {
    let mut whole = OsString::from_vec(root.to_bytes().to_vec());
    if !path.has_root() {
        whole.push("/");
    }
    whole.push(path.as_os_str());
    Ok(CString::new(whole.as_bytes())?)
}
