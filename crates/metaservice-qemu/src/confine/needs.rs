//! The files, devices and capabilities that QEMU needs for one machine.
//!
//! This module computes the list from the machine's description and the host. The other modules of
//! `confine` deny the rest, as far as the host has the means. All paths are absolute.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::mounts::{self, Mount};
use crate::spec::MachineSpec;
use crate::spec::accelerator::AcceleratorChoice;
use crate::spec::boot::Boot;
use crate::spec::error::InvalidSpec;
use crate::spec::share::Share;
use crate::spec::snapshot::{SnapshotFiles, SnapshotUse};
use crate::spec::visibility;

/// Programs, libraries and firmware.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Directories of other package managers, if the program is there.
const STORES: [&str; 2] = ["/nix", "/gnu"];

/// Files that the loader and libraries read.
const SETTINGS: [&str; 8] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/qemu",
];

const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Directories beside that of a program that the system did not install.
const BESIDE: [&str; 7] = ["etc", "lib", "lib64", "libexec", "pc-bios", "qemu", "share"];

/// Variables with more directories, in the form of `PATH`.
const VARIABLES: [&str; 3] = ["LD_LIBRARY_PATH", "QEMU_MODULE_DIR", "METASERVICE_QEMU_PATHS"];

/// What one machine needs.
#[derive(Debug)]
pub(crate) struct Needs {
    /// QEMU, without symbolic links.
    pub(crate) program: PathBuf,
    pub(super) devices: Vec<PathBuf>,
    /// Files and directories to read, sorted.
    pub(super) reads: Vec<PathBuf>,
    /// Files and directories to write.
    pub(super) writes: Vec<PathBuf>,
    /// The directory of each 9p device. `None`: an empty one.
    pub(super) exported: Vec<Option<Exported>>,
    /// A directory with nothing in it, for a host on which none can be mounted.
    pub(super) empty: Option<PathBuf>,
}

/// A shared directory.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) directory: PathBuf,
    pub(super) writable: bool,
    /// The hidden paths in it, sorted. None is within another.
    pub(super) hidden: Vec<PathBuf>,
    /// The file systems below it, sorted.
    pub(super) mounts: Vec<Mount>,
}

impl Needs {
    /// The needs of a machine. `scratch` is the directory of QEMU's temporary files, if it creates
    /// any.
    pub(crate) fn of(
        spec: &MachineSpec,
        accelerator: &AcceleratorChoice,
        scratch: Option<PathBuf>,
    ) -> Result<Self, InvalidSpec> {
        let program = existing("the program", &spec.qemu.path)?;
        let mut reads: Vec<PathBuf> = beside(&program).chain(named()).collect();
        let mut writes: Vec<PathBuf> = scratch.into_iter().collect();
        if let Boot::Direct { kernel, initramfs, .. } = &spec.boot {
            for path in [Some(kernel), initramfs.as_ref()].into_iter().flatten() {
                reads.push(existing("the kernel or initramfs", path.path())?);
            }
        }
        if let Some(disk) = &spec.disk {
            let list = if spec.keeps_disk { &mut writes } else { &mut reads };
            list.push(disk.path().to_owned());
            if disk.needs_other_files() {
                reads.extend(disk.path().parent().map(Path::to_owned));
            }
        }
        let empty = match &spec.snapshot {
            None => None,
            Some(SnapshotUse::Create(SnapshotFiles { memory, disk, empty })) => {
                writes.extend([Some(memory), disk.as_ref()].into_iter().flatten().cloned());
                Some(empty)
            }
            Some(SnapshotUse::Restore(SnapshotFiles { memory, disk, empty }, _)) => {
                // QEMU opens the memory for writing, even for a private view of it.
                writes.push(memory.clone());
                reads.extend(disk.clone());
                Some(empty)
            }
        };
        let kvm = accelerator.kvm.then_some("/dev/kvm");
        let devices =
            DEVICES.into_iter().chain(kvm).map(PathBuf::from).filter(|path| path.exists());
        let exported = spec.shares.iter().map(|share| Exported::of(spec, share).map(Some));
        let mut exported: Vec<_> = exported.collect::<Result<_, _>>()?;
        exported.resize_with(spec.share_devices.max(exported.len()), || None);
        reads.sort();
        reads.dedup();
        Ok(Self {
            program,
            devices: devices.collect(),
            reads,
            writes,
            exported,
            empty: empty.cloned(),
        })
    }

    /// The directories that are shared.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Exported> {
        self.exported.iter().flatten()
    }

    /// Whether the guest writes to a directory of the host.
    pub(super) fn shares_writably(&self) -> bool {
        self.shared().any(|exported| exported.writable)
    }

    /// Programs, libraries and their settings, as far as this host has them.
    pub(super) fn system(&self) -> impl Iterator<Item = PathBuf> {
        let store = |store: &&str| self.program.starts_with(store);
        let all = PROGRAMS.into_iter().chain(SETTINGS).chain(STORES.into_iter().filter(store));
        all.map(PathBuf::from).filter(|path| path.exists())
    }

    /// The capabilities that root needs to read and write files of other users. In the user
    /// namespace it keeps these and no others.
    pub(super) fn capabilities(&self) -> CapabilitySet {
        let foreign = |path: &PathBuf, mode: u32| {
            fs::metadata(path).is_ok_and(|file| file.uid() != 0 && file.mode() & mode != mode)
        };
        let mut kept = CapabilitySet::empty();
        if self.shared().next().is_some() || self.reads.iter().any(|path| foreign(path, 0o004)) {
            kept |= CapabilitySet::DAC_READ_SEARCH;
        }
        if self.writes.iter().any(|path| foreign(path, 0o006)) {
            kept |= CapabilitySet::DAC_OVERRIDE;
        }
        if self.shares_writably() {
            // Root writes to files of all users. It does not give files away.
            kept |= CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
        }
        kept
    }
}

impl Exported {
    fn of(spec: &MachineSpec, share: &Share) -> Result<Self, InvalidSpec> {
        let directory = existing("the directory", &share.directory)?;
        if !directory.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            return Err(InvalidSpec::Path { what: "the directory", path: directory, source });
        }
        let hidden = spec.visibility.hidden(&directory, share.is_root, visibility::defaults())?;
        let mounts = mounts::below(&directory, &hidden, &spec.visibility.shown()?)
            .map_err(InvalidSpec::Mounts)?;
        Ok(Self { directory, writable: share.writable, hidden, mounts })
    }
}

fn existing(what: &'static str, path: &Path) -> Result<PathBuf, InvalidSpec> {
    path.canonicalize().map_err(|source| InvalidSpec::Path { what, path: path.to_owned(), source })
}

/// The directory of a program, and those that usually are beside it.
fn beside(program: &Path) -> impl Iterator<Item = PathBuf> {
    let directory = program.parent().unwrap_or(program).to_owned();
    let above = directory.parent().map(Path::to_owned);
    let beside = above.into_iter().flat_map(|above| BESIDE.map(|name| above.join(name)));
    // For a program in a home directory itself, the program alone, without the other files there.
    let own = if is_too_much(&directory) { program.to_owned() } else { directory };
    std::iter::once(own).chain(beside.filter(|path| path.exists() && !is_too_much(path)))
}

/// The directories in environment variables.
fn named() -> impl Iterator<Item = PathBuf> {
    let split = |value: OsString| std::env::split_paths(&value).collect::<Vec<_>>();
    let all = VARIABLES.into_iter().filter_map(std::env::var_os).flat_map(split);
    all.filter_map(|path| path.canonicalize().ok()).filter(|path| !is_too_much(path))
}

/// Whether a directory contains a home directory, or the whole host.
fn is_too_much(directory: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.map(|home| home.canonicalize().unwrap_or(home));
    directory == Path::new("/") || home.is_some_and(|home| home.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::qemu::{Qemu, QemuVersion};

    fn needs(change: impl FnOnce(MachineSpec) -> MachineSpec) -> Result<Needs, InvalidSpec> {
        let qemu = Qemu::new("/bin/sh", QemuVersion { major: 7, minor: 2 });
        let spec = change(MachineSpec::new(&qemu, Boot::Firmware));
        let choice = AcceleratorChoice { kvm: false, reason: String::new() };
        Needs::of(&spec, &choice, None)
    }

    #[test]
    fn a_relative_directory_becomes_absolute_and_a_missing_one_is_named() {
        let found = needs(|spec| spec.share(Share::new("src")).share_devices(3)).unwrap();
        let shared: Vec<_> = found.shared().map(|exported| &exported.directory).collect();
        assert!(matches!(shared[..], [one] if one.ends_with("metaservice-qemu/src")), "{shared:?}");
        assert_eq!((found.exported.len(), found.shares_writably()), (3, false));
        assert!(needs(|spec| spec.share(Share::new("src").writable())).unwrap().shares_writably());
        let missing = needs(|spec| spec.share(Share::new("/no/such"))).unwrap_err();
        assert_eq!(missing.to_string(), "cannot use the directory /no/such");
        assert!(needs(|spec| spec.share(Share::new("/bin/sh"))).is_err());
    }
}
