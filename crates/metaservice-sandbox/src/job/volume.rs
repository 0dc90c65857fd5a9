//! Volumes: directories of the host that are mounted in the guest.
//!
//! Owns the form `HOST:GUEST[:MODE]`, and which places of a guest a volume can have. It does not
//! decide what a volume shows: that is the work of the machine's driver.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use metaservice::VolumeMode;

use super::artifact::split_source;
use crate::spec::{VolumeModeSpec, VolumeSpec};

/// The most volumes of a job.
pub const MAX_VOLUMES: usize = 16;

/// The longest path of a guest.
const MAX_PATH: usize = 4095;

/// Where the guest has file systems of its kernel, and the files of its agent. Nothing can be
/// mounted there or below.
const KERNELS_OWN: [&str; 4] = ["/proc", "/sys", "/dev", "/run/metaservice"];

/// Where a volume would cover what the guest needs. Volumes can be below.
const NEEDED: [&str; 2] = ["/", "/run"];

/// A volume of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The directory of the host, without symbolic links.
    pub(crate) host: PathBuf,
    /// The path in the guest: absolute, without `.`, `..` and empty names.
    pub(crate) guest: String,
    pub(crate) mode: VolumeMode,
}

/// Why a description of a volume is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidVolume {
    /// There is no path in the guest.
    #[error("it is not HOST:GUEST[:ro|rw|overlay]")]
    Form,
    /// The third part is not a mode.
    #[error("{0:?} is not a mode; write ro, rw or overlay")]
    Mode(String),
    /// The path of the host is empty.
    #[error("the path of the host is empty; write . for the working directory")]
    NoHost,
    /// The path of the host cannot be used.
    #[error("cannot use {}", path.display())]
    Host {
        /// The path, as it was written.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The path of the host is not a directory.
    #[error("{} is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// The path in the guest is relative.
    #[error("the path in the guest must be absolute, and {0:?} is not")]
    Relative(String),
    /// The path in the guest leads upwards.
    #[error("the path in the guest must be without \"..\"")]
    Upwards,
    /// The path in the guest has a zero byte, or is too long.
    #[error("the path in the guest is longer than {MAX_PATH} bytes, or has a zero byte")]
    Unusable,
    /// The guest needs what is at this path.
    #[error("the guest needs its own {0}")]
    Needed(String),
}

impl FromStr for VolumeSpec {
    type Err = InvalidVolume;

    /// Reads `HOST:GUEST[:MODE]`. A colon that belongs to a path has a backslash before it.
    fn from_str(text: &str) -> Result<Self, InvalidVolume> {
        let (host, rest) = split_source(text);
        let (guest, mode) = split_source(rest.ok_or(InvalidVolume::Form)?);
        let mode = match mode {
            None | Some("ro") => VolumeModeSpec::Ro,
            Some("rw") => VolumeModeSpec::Rw,
            Some("overlay") => VolumeModeSpec::Overlay,
            Some(other) => return Err(InvalidVolume::Mode(other.to_owned())),
        };
        Ok(Self { host: host.into(), guest, mode })
    }
}

impl Volume {
    /// Checks a volume. Blocks: looks for the directory.
    pub(super) fn resolve(spec: &VolumeSpec) -> Result<Self, InvalidVolume> {
        let guest = place(&spec.guest)?;
        let host = directory(&spec.host)?;
        let mode = match spec.mode {
            VolumeModeSpec::Ro => VolumeMode::ReadOnly,
            VolumeModeSpec::Rw => VolumeMode::ReadWrite,
            VolumeModeSpec::Overlay => VolumeMode::Overlay,
        };
        Ok(Self { host, guest, mode })
    }

    /// How deep the path in the guest is. A volume is mounted after those above it.
    pub(super) fn depth(&self) -> usize {
        self.guest.split('/').count()
    }
}

/// The path of a directory of the host, without links. Blocks.
pub(super) fn directory(path: &Path) -> Result<PathBuf, InvalidVolume> {
    if path.as_os_str().is_empty() {
        return Err(InvalidVolume::NoHost);
    }
    let failed = |cause| InvalidVolume::Host { path: path.to_owned(), cause };
    let directory = path.canonicalize().map_err(failed)?;
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(InvalidVolume::NoDirectory(path.to_owned())),
    }
}

/// A path in the guest without `.` and empty names.
fn place(text: &str) -> Result<String, InvalidVolume> {
    if text.is_empty() {
        return Err(InvalidVolume::Form);
    }
    if !text.starts_with('/') {
        return Err(InvalidVolume::Relative(text.to_owned()));
    }
    if text.len() > MAX_PATH || text.contains('\0') {
        return Err(InvalidVolume::Unusable);
    }
    let names = text.split('/').filter(|name| !name.is_empty() && *name != ".");
    let mut place = String::new();
    for name in names {
        if name == ".." {
            return Err(InvalidVolume::Upwards);
        }
        place.push('/');
        place.push_str(name);
    }
    if place.is_empty() {
        place.push('/');
    }
    let needed = NEEDED.iter().find(|needed| **needed == place);
    let inside = || KERNELS_OWN.iter().find(|own| Path::new(&place).starts_with(own));
    match needed.or_else(inside) {
        Some(needed) => Err(InvalidVolume::Needed((*needed).to_owned())),
        None => Ok(place),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_volume_has_two_paths_and_perhaps_a_mode() {
        let parsed = |text: &str| {
            let VolumeSpec { host, guest, mode } = text.parse().unwrap();
            (host.display().to_string(), guest, mode)
        };
        let expected = |host: &str, guest: &str, mode| (host.to_owned(), guest.to_owned(), mode);
        assert_eq!(parsed(".:/src"), expected(".", "/src", VolumeModeSpec::Ro));
        assert_eq!(parsed("/a:/b:ro"), expected("/a", "/b", VolumeModeSpec::Ro));
        assert_eq!(parsed("/a:/b:rw"), expected("/a", "/b", VolumeModeSpec::Rw));
        assert_eq!(parsed("/a:/b:overlay"), expected("/a", "/b", VolumeModeSpec::Overlay));
        assert_eq!(parsed(r"/a\:1:/b\:2:rw"), expected("/a:1", "/b:2", VolumeModeSpec::Rw));
        assert_eq!(parsed(r"/a\\:/b"), expected(r"/a\", "/b", VolumeModeSpec::Ro));
        for (wrong, says) in [
            ("", "it is not HOST:GUEST"),
            ("/a", "it is not HOST:GUEST"),
            (r"/a\:/b", "it is not HOST:GUEST"),
            ("/a:/b:", "\"\" is not a mode"),
            ("/a:/b:rx", "\"rx\" is not a mode"),
            ("/a:/b:rw:z", "\"rw:z\" is not a mode"),
        ] {
            let error = wrong.parse::<VolumeSpec>().unwrap_err().to_string();
            assert!(error.starts_with(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_place_in_the_guest_is_absolute_and_covers_nothing_that_the_guest_needs() {
        assert_eq!(place("//src/./a//").unwrap(), "/src/a");
        for fine in ["/a", "/tmp", "/run/x", "/processes", "/run/metaservices", "/a/b:c d"] {
            assert_eq!(place(fine).unwrap(), fine);
        }
        let long = format!("/{}", "a".repeat(MAX_PATH));
        for wrong in ["", "src", "./src", "/a/../b", "/a\0", &long] {
            place(wrong).unwrap_err();
        }
        for needed in ["/", "/.", "/proc", "/dev/x", "/sys/", "/run", "/run/metaservice/x"] {
            let error = place(needed).unwrap_err();
            assert!(matches!(error, InvalidVolume::Needed(_)), "{needed}: {error}");
        }
    }

    #[test]
    fn the_directory_must_exist_and_be_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let resolve = |host: &Path| {
            let (host, mode) = (host.to_owned(), VolumeModeSpec::Overlay);
            Volume::resolve(&VolumeSpec { host, guest: "/x".to_owned(), mode })
        };
        let found = resolve(&directory.path().join(".")).unwrap();
        assert_eq!(found.host, directory.path().canonicalize().unwrap());
        assert_eq!((found.mode, found.depth()), (VolumeMode::Overlay, 2));
        assert!(matches!(resolve(&file), Err(InvalidVolume::NoDirectory(_))));
        assert!(matches!(resolve(&file.join("x")), Err(InvalidVolume::Host { .. })));
        assert!(matches!(resolve(Path::new("")), Err(InvalidVolume::NoHost)));
        assert!(resolve(Path::new(".")).unwrap().host.is_absolute());
    }

    proptest! {
        #[test]
        fn any_two_paths_are_read_as_they_were_escaped(
            host in "[a-z/. :]{1,20}", guest in "/[a-z/. :]{0,20}",
        ) {
            let escape = |path: &str| path.replace(':', r"\:");
            let text = format!("{}:{}:rw", escape(&host), escape(&guest));
            let spec: VolumeSpec = text.parse().unwrap();
            prop_assert_eq!(spec.host.to_str(), Some(host.as_str()));
            prop_assert_eq!(spec.guest, guest);
        }

        #[test]
        fn a_place_has_no_name_that_leads_elsewhere(text in "[a-z/.]{0,30}") {
            if let Ok(place) = place(&text) {
                prop_assert!(place.starts_with('/') && place.len() > 1);
                let mut names = place[1..].split('/');
                prop_assert!(names.all(|name| !["", ".", ".."].contains(&name)), "{}", place);
                prop_assert_eq!(super::place(&place).unwrap(), place);
            }
        }
    }
}
