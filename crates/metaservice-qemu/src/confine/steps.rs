//! How a root is put together that holds what one machine needs and nothing else.
//!
//! Owns the list of steps, made before the fork; [`enter`](super::enter) takes them. The host's
//! files are below [`HOST`] while they are taken.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::needs::{Exported, Needs};

/// The host's root while the new one is put together.
pub(super) const HOST: &CStr = c"/.host";

/// What hidden files look like, and where those folders are that hidden ones look like: each has
/// its own. A guest that found one folder at two places would take it for moved.
pub(super) const NOTHING: &CStr = c"/.nothing";
const EMPTY: &CStr = c"/.empty";

/// Where an exported folder is.
pub(crate) const EXPORT: &str = "/export";

/// One change to the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A folder, where there is none.
    Folder(CString),
    /// A file to mount over, where there is none.
    File(CString),
    /// A symbolic link.
    Link { to: CString, at: CString },
    /// The host's file or folder, with the file systems below it or without.
    Bind { from: CString, at: CString, below: bool },
    /// From here on it cannot be written, nor what is below it.
    ReadOnly(CString),
    /// An empty file on top of it, or this empty folder.
    Hide { at: CString, empty: CString },
}

/// The root of a machine's QEMU. `export` says whether the folder is part of it.
pub(super) fn of_machine(needs: &Needs, export: bool) -> io::Result<Vec<Step>> {
    let mut steps = Steps::default();
    for path in needs.system() {
        // Where `/lib` is a link, it stays one: programs are found by both names.
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
    // By its own descriptors' names QEMU reads attributes of shared files.
    steps.bind(Path::new("/proc/self/fd"), Path::new("/proc/self/fd"), true, true)?;
    if let (Some(exported), true) = (&needs.exported, export) {
        steps.export(exported, false)?;
    }
    Ok(steps.0)
}

/// A root with the exported folder alone, as an ordinary user can make it.
pub(super) fn of_export(exported: &Exported) -> io::Result<Vec<Step>> {
    let mut steps = Steps::default();
    steps.export(exported, true)?;
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

    fn bind(&mut self, from: &Path, at: &Path, folder: bool, writable: bool) -> io::Result<()> {
        let above: Vec<&Path> = at.ancestors().skip(1).collect();
        for folder in above.into_iter().rev().skip(1) {
            self.push(Step::Folder(text(folder)?));
        }
        let place = text(at)?;
        self.push(if folder { Step::Folder(place.clone()) } else { Step::File(place.clone()) });
        self.push(Step::Bind { from: below(HOST, from)?, at: place.clone(), below: folder });
        if !writable {
            self.push(Step::ReadOnly(place));
        }
        Ok(())
    }

    fn hide(&mut self, at: CString) -> io::Result<()> {
        self.push(Step::Folder(EMPTY.into()));
        let empty = below(EMPTY, Path::new(&self.0.len().to_string()))?;
        self.push(Step::Folder(empty.clone()));
        self.push(Step::Hide { at, empty });
        Ok(())
    }

    /// With file systems below it, as an ordinary user has to take them along, these are hidden:
    /// without, what is to be shown of them is mounted.
    fn export(&mut self, exported: &Exported, whole: bool) -> io::Result<()> {
        let place = CString::new(EXPORT)?;
        let within =
            |path: &Path| below(&place, path.strip_prefix(&exported.folder).unwrap_or(path));
        self.push(Step::Folder(place.clone()));
        let from = below(HOST, &exported.folder)?;
        self.push(Step::Bind { from, at: place.clone(), below: whole });
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
        self.push(Step::ReadOnly(place));
        Ok(())
    }
}

fn text(path: impl Into<PathBuf>) -> io::Result<CString> {
    Ok(CString::new(path.into().into_os_string().into_vec())?)
}

/// An absolute path, or one relative to a root, below another root.
fn below(root: &CStr, path: &Path) -> io::Result<CString> {
    let mut whole = OsString::from_vec(root.to_bytes().to_vec());
    if !path.has_root() {
        whole.push("/");
    }
    whole.push(path.as_os_str());
    Ok(CString::new(whole.as_bytes())?)
}
