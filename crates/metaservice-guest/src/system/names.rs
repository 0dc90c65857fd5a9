//! The files in which programs find names: that of the resolver, and that of hosts.
//!
//! Owns how the files get into a root. They are the machine's, and not those of a root: they stay
//! as they are when the root changes, as the network does.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use crate::diagnostics::print;

/// The content of the resolver's file for one resolver.
pub(crate) fn resolver(address: Ipv4Addr) -> String {
    format!("nameserver {address}\n")
}

/// The content of the file of hosts for a machine of this name. The machine's own name leads to the
/// machine, without a question to the resolver. So the file has no name that the resolver answers
/// as the loopback interface of the host.
pub(crate) fn hosts(name: &str) -> String {
    let own = match name {
        "" | "(none)" | "localhost" | "host" | "host.internal" => String::new(),
        name => format!("127.0.1.1 {name}\n"),
    };
    format!("127.0.0.1 localhost\n::1 localhost\n{own}")
}

/// Gives the machine's new name to the file of hosts in this root, if it is the machine's.
pub(crate) fn rename(before: &str, name: &str) {
    if before != name && NameFile::Hosts.read().is_some_and(|content| content == hosts(before)) {
        NameFile::Hosts.write(&hosts(name));
    }
}

/// A file of names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NameFile {
    Resolver,
    Hosts,
}

impl NameFile {
    pub(crate) const ALL: [Self; 2] = [Self::Resolver, Self::Hosts];

    /// Where it is.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Resolver => "/etc/resolv.conf",
            Self::Hosts => "/etc/hosts",
        }
    }

    /// Where it is if the root cannot be written.
    const fn outside(self) -> &'static str {
        match self {
            Self::Resolver => "/run/resolv.conf",
            Self::Hosts => "/run/hosts",
        }
    }

    /// The content in this root. `None`: there is none.
    pub(crate) fn read(self) -> Option<String> {
        fs::read_to_string(self.path()).ok()
    }

    /// Writes the file into the layer over a share that becomes the root. It replaces what the
    /// share has in its place, also if the guest cannot enter that.
    pub(crate) fn put(self, content: &str, lower: &Path, upper: &Path) -> io::Result<()> {
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
        fs::write(upper.join(self.path().trim_start_matches("/etc/")), content)
    }

    /// Writes the file into this root. A link in its place is replaced: its target may not exist,
    /// or be the file of a program that does not run here. If the root cannot be written, the file
    /// is mounted over the one that is there. A failure is only printed, because the command may
    /// not need names.
    pub(crate) fn write(self, content: &str) {
        let path = Path::new(self.path());
        let replaced = replace(path, content);
        if let Err(error) = replaced.or_else(|error| self.cover(content).map_err(|_| error)) {
            print(&format!("cannot write {}: {error}", path.display()));
        }
    }

    fn cover(self, content: &str) -> io::Result<()> {
        fs::write(self.outside(), content)?;
        Ok(rustix::mount::mount_bind(self.outside(), self.path())?)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_link_is_replaced_and_its_target_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (file, target) = (directory.path().join("etc/file"), directory.path().join("target"));
        let content = resolver([10, 0, 2, 2].into());
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
    fn the_machine_has_its_own_name_and_not_that_of_the_host() {
        let local = "127.0.0.1 localhost\n::1 localhost\n";
        assert_eq!(hosts("web.example"), format!("{local}127.0.1.1 web.example\n"));
        for name in ["", "(none)", "localhost", "host", "host.internal"] {
            assert_eq!(hosts(name), local, "{name}");
        }
    }

    #[test]
    fn a_layer_gets_the_files_in_a_directory_like_that_of_its_share() {
        let directory = tempfile::tempdir().unwrap();
        let [lower, upper] = ["lower", "upper"].map(|name| directory.path().join(name));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir(&upper).unwrap();
        let mode = fs::Permissions::from_mode(0o751);
        fs::set_permissions(lower.join("etc"), mode.clone()).unwrap();
        for file in NameFile::ALL {
            file.put("a", &lower, &upper).unwrap();
        }
        for name in ["etc/resolv.conf", "etc/hosts"] {
            assert_eq!(fs::read_to_string(upper.join(name)).unwrap(), "a");
        }
        let made = fs::metadata(upper.join("etc")).unwrap().permissions().mode();
        assert_eq!(made & 0o7777, mode.mode());
        fs::remove_dir_all(upper.join("etc")).unwrap();
        fs::remove_dir(lower.join("etc")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", lower.join("etc")).unwrap();
        assert!(NameFile::Hosts.put("a", &lower, &upper).is_err());
        assert!(!upper.join("etc").exists());
    }
}
