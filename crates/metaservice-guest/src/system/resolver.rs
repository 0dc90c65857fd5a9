//! The file in which programs find the resolver of names.
//!
//! Owns how the file gets into a root. It is the machine's, and not that of a root: it stays as it
//! is when the root changes, as the network does.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::diagnostics::print;

const FILE: &str = "/etc/resolv.conf";

/// Where the file is if the root cannot be written.
const OUTSIDE: &str = "/run/resolv.conf";

/// The content of the file for one resolver.
pub(crate) fn of(resolver: Ipv4Addr) -> String {
    format!("nameserver {resolver}\n")
}

/// The content of the file in this root. `None`: it has none.
pub(crate) fn read() -> Option<String> {
    fs::read_to_string(FILE).ok()
}

/// Writes the file into the layer over a share that becomes the root. It replaces what the share
/// has in its place, also if the guest cannot enter that.
pub(crate) fn put(content: &str, lower: &Path, upper: &Path) -> io::Result<()> {
    let (lower, upper) = (lower.join("etc"), upper.join("etc"));
    if !upper.exists() {
        let metadata = fs::symlink_metadata(&lower)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        fs::create_dir(&upper)?;
        chown(&upper, Some(metadata.uid()), Some(metadata.gid()))?;
        fs::set_permissions(&upper, metadata.permissions())?;
    }
    fs::write(upper.join("resolv.conf"), content)
}

/// Writes the file into this root. A link in its place is replaced: its target may not exist, or be
/// the file of a program that does not run here. If the root cannot be written, the file is mounted
/// over the one that is there. A failure is only printed, because the command may not need names.
pub(crate) fn write(content: &str) {
    let replaced = replace(Path::new(FILE), content);
    if let Err(error) = replaced.or_else(|error| cover(content).map_err(|_| error)) {
        print(&format!("cannot write {FILE}: {error}"));
    }
}

fn replace(file: &Path, content: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::write(file, content),
    }
}

fn cover(content: &str) -> io::Result<()> {
    fs::write(OUTSIDE, content)?;
    Ok(rustix::mount::mount_bind(OUTSIDE, FILE)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_link_is_replaced_and_its_target_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (file, target) = (directory.path().join("etc/file"), directory.path().join("target"));
        let content = of([10, 0, 2, 2].into());
        replace(&file, &content).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "nameserver 10.0.2.2\n");
        fs::write(&target, "other").unwrap();
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
        replace(&file, &content).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        assert_eq!(fs::read_to_string(&target).unwrap(), "other");
    }

    #[test]
    fn a_layer_gets_the_file_in_a_directory_like_that_of_its_share() {
        let directory = tempfile::tempdir().unwrap();
        let [lower, upper] = ["lower", "upper"].map(|name| directory.path().join(name));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir(&upper).unwrap();
        let mode = fs::Permissions::from_mode(0o751);
        fs::set_permissions(lower.join("etc"), mode.clone()).unwrap();
        put("a", &lower, &upper).unwrap();
        assert_eq!(fs::read_to_string(upper.join("etc/resolv.conf")).unwrap(), "a");
        let made = fs::metadata(upper.join("etc")).unwrap().permissions().mode();
        assert_eq!(made & 0o7777, mode.mode());
        fs::remove_dir_all(upper.join("etc")).unwrap();
        fs::remove_dir(lower.join("etc")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", lower.join("etc")).unwrap();
        assert!(put("a", &lower, &upper).is_err());
        assert!(!upper.join("etc").exists());
    }
}
