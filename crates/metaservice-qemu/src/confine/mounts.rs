//! The file systems below a directory.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// A file system below a shared directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) at: PathBuf,
    /// Whether the user wants it to be shown.
    pub(super) shown: bool,
}

/// The file systems below a directory, as this process sees them, except within hidden paths.
pub(super) fn below(
    directory: &Path,
    hidden: &[PathBuf],
    shown: &BTreeSet<PathBuf>,
) -> io::Result<Vec<Mount>> {
    let mut mounts = select(&std::fs::read("/proc/self/mountinfo")?, directory, hidden, shown);
    for mount in &mut mounts {
        if let Some(closed) = closed_above(&mount.at, directory) {
            *mount = Mount { at: closed.to_owned(), shown: false };
        }
    }
    mounts.dedup();
    Ok(mounts)
}

/// The directory between `directory` and a path that this user cannot enter, such as one of another
/// user's containers. Nothing can be mounted within it, and it looks empty as a whole.
fn closed_above<'a>(path: &'a Path, directory: &Path) -> Option<&'a Path> {
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(|at| *at != directory).collect();
    above.into_iter().rev().find(|at| access(*at, Access::EXEC_OK).is_err())
}

fn select(
    table: &[u8],
    directory: &Path,
    hidden: &[PathBuf],
    shown: &BTreeSet<PathBuf>,
) -> Vec<Mount> {
    let lines = table.split(|byte| *byte == b'\n');
    let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(plain);
    let below: BTreeSet<PathBuf> =
        places.filter(|at| at != directory && at.starts_with(directory)).collect();
    let mut mounts: Vec<Mount> = Vec::new();
    for at in below {
        let covered = hidden.iter().any(|above| at.starts_with(above))
            || mounts.iter().any(|mount| !mount.shown && at.starts_with(&mount.at));
        if !covered {
            let shown = shown.contains(&at);
            mounts.push(Mount { at, shown });
        }
    }
    mounts
}

/// A path without the escapes of the table: a backslash and three octal digits.
fn plain(escaped: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_entered_is_hidden_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("open/closed");
        std::fs::create_dir(directory.path().join("open")).unwrap();
        // For each user, a file is a directory that cannot be entered.
        std::fs::write(&file, "").unwrap();
        assert_eq!(closed_above(&file.join("a/b"), directory.path()), Some(file.as_path()));
        assert_eq!(closed_above(&file, directory.path()), None);
    }

    #[test]
    fn the_outermost_file_systems_below_a_directory() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:3 / /proc rw - proc p rw\n\
            3 1 0:4 / /home rw - ext4 b rw\n4 3 0:5 / /home/a\\040b rw - nfs c rw\n\
            5 1 0:6 / /mnt rw - tmpfs d rw\n6 5 0:7 / /mnt/x rw - tmpfs e rw\n";
        let found = |directory: &str, hidden: &[&str], shown: &[&str]| {
            let hidden: Vec<PathBuf> = hidden.iter().map(PathBuf::from).collect();
            let shown = shown.iter().map(PathBuf::from).collect();
            let found = select(table, Path::new(directory), &hidden, &shown).into_iter();
            found.map(|mount| (mount.at.display().to_string(), mount.shown)).collect::<Vec<_>>()
        };
        let own = |text: &str, shown| (text.to_owned(), shown);
        assert_eq!(
            found("/", &["/proc"], &["/home"]),
            [own("/home", true), own("/home/a b", false), own("/mnt", false)]
        );
        assert_eq!(found("/home", &[], &[]), [own("/home/a b", false)]);
        assert_eq!(found("/home/a b", &[], &[]), []);
    }
}
