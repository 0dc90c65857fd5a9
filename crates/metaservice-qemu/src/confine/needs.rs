//! The files, devices, capabilities and network access that QEMU needs for one machine.
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
use crate::spec::boot::{Boot, Root};
use crate::spec::error::InvalidSpec;
use crate::spec::network::Network;
use crate::spec::snapshot::{SnapshotFiles, SnapshotUse};
use crate::spec::visibility;

/// Programs, libraries and firmware.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Directories of other package managers, if the program is there.
const STORES: [&str; 2] = ["/nix", "/gnu"];

/// Files that the loader and the resolver read.
const SETTINGS: [&str; 13] = [
    "/etc/alternatives",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/qemu",
    "/etc/resolv.conf",
    "/etc/services",
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
    /// Whether QEMU itself uses the network.
    pub(super) network: bool,
    pub(super) exported: Option<Exported>,
}

/// A shared directory.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) directory: PathBuf,
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
        match &spec.snapshot {
            None => {}
            Some(SnapshotUse::Create(SnapshotFiles { memory, disk })) => {
                writes.extend([Some(memory), disk.as_ref()].into_iter().flatten().cloned());
            }
            Some(SnapshotUse::Restore(SnapshotFiles { memory, disk }, _)) => {
                // QEMU opens the memory for writing, even for a private view of it.
                writes.push(memory.clone());
                reads.extend(disk.clone());
            }
        }
        let kvm = accelerator.kvm.then_some("/dev/kvm");
        let devices =
            DEVICES.into_iter().chain(kvm).map(PathBuf::from).filter(|path| path.exists());
        let exported = match &spec.root {
            Root::Directory(directory) => Some(Exported::of(spec, directory)?),
            Root::Initramfs | Root::Disk => None,
        };
        reads.sort();
        reads.dedup();
        Ok(Self {
            program,
            devices: devices.collect(),
            reads,
            writes,
            network: spec.network == Network::User,
            exported,
        })
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
        if self.exported.is_some() || self.reads.iter().any(|path| foreign(path, 0o004)) {
            kept |= CapabilitySet::DAC_READ_SEARCH;
        }
        if self.writes.iter().any(|path| foreign(path, 0o006)) {
            kept |= CapabilitySet::DAC_OVERRIDE;
        }
        kept
    }
}

impl Exported {
    fn of(spec: &MachineSpec, directory: &Path) -> Result<Self, InvalidSpec> {
        let directory = existing("the directory", directory)?;
        let hidden = spec.visibility.hidden(&directory, visibility::defaults())?;
        let mounts = mounts::below(&directory, &hidden, &spec.visibility.shown()?)
            .map_err(InvalidSpec::Mounts)?;
        Ok(Self { directory, hidden, mounts })
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
