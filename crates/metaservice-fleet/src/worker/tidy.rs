//! Removes what a guest has left on the host, whatever its permissions are.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a directory with all that is in it. None is no error.
///
/// # Errors
/// When something cannot be removed. It may be a tree with paths that are too long and directories
/// that cannot be read at once.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    let remove = || match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(directory);
            remove()
        }
        removed => removed,
    }
}

/// Lets this user read all directories and files below, also those that the guest closed. It
/// changes as many as it can, and follows no link.
pub(super) fn open_up(directory: &Path) {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        add_mode(&directory, 0o700);
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() => add_mode(&entry.path(), 0o400),
                _ => {}
            }
        }
    }
}

fn add_mode(path: &Path, more: u32) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_symlink() && mode & more != more {
        // What cannot be changed is found by its reader.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode | more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_opened_and_removed_and_links_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (tree, other) = (parent.path().join("tree"), parent.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
        for path in [tree.join("a/b/file"), tree.join("a/b"), tree.join("a"), other.clone()] {
            fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap();
        }
        open_up(&tree);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&tree.join("a/b")), mode(&tree.join("a/b/file"))), (0o700, 0o400));
        assert_eq!(mode(&other), 0);
        fs::set_permissions(tree.join("a"), Permissions::from_mode(0o0)).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && other.exists());
        remove(&tree).unwrap();
    }
}
