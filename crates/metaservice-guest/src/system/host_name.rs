//! The guest's host name: the kernel's, and the one that the image stores.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use metaservice_private::replace_unsynced;

use crate::diagnostics::{print, with_causes};
use crate::system::names;

/// The kernel's limit for a host name.
const MAX_HOSTNAME: usize = 64;

/// Where an image stores its host name.
const HOSTNAME: &str = "/etc/hostname";

/// Sets the host name, also in the machine's file of hosts, and stores it if the image stores one.
/// An agent that may not do this prints so. A name with other characters than a host name has
/// changes nothing.
pub(crate) fn set(name: &str) {
    if !is_host_name(name) {
        return;
    }
    let before = rustix::system::uname();
    if let Err(errno) = rustix::system::sethostname(name.as_bytes()) {
        print(&format!("the host name is not set: {}", with_causes(&io::Error::from(errno))));
        return;
    }
    names::rename(&before.nodename().to_string_lossy(), name);
    if let Err(error) = write_hostname(Path::new(HOSTNAME), name) {
        print(&format!("{HOSTNAME} is not written: {}", with_causes(&error)));
    }
}

/// Replaces the image's stored host name, if it is a plain file.
fn write_hostname(path: &Path, name: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    replace_unsynced(path, format!("{name}\n").as_bytes(), metadata.permissions().mode())
}

fn is_host_name(name: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_HOSTNAME && name.bytes().all(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_host_name_is_replaced_if_it_has_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostname");
        write_hostname(&path, "job-1").unwrap();
        assert!(!path.exists(), "an image without the file gets none");
        fs::write(&path, "prepare-77\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_hostname(&path, "job-1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_hostname(&link, "job-2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "job-1\n", "a link is left alone");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_host_name_has_only_letters_digits_hyphens_and_dots() {
        assert!(is_host_name("job-1.example"));
        for other in ["", "a b", "a\n", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_host_name(other), "{other:?}");
        }
    }
}
