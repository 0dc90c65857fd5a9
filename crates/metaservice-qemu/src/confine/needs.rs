//! What one machine's QEMU needs of its host.
//!
//! Owns the answer, from the machine's description and this host; who enforces it is
//! [`confine`](super)'s. All paths are absolute.

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

/// Where programs, libraries and firmware are.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Where those of other package managers are, if the program is there itself.
const STORES: [&str; 2] = ["/nix", "/gnu"];

/// What the loader and the resolver read.
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

/// What stands beside the folder of a program that was not installed by the system.
const BESIDE: [&str; 7] = ["etc", "lib", "lib64", "libexec", "pc-bios", "qemu", "share"];

/// Variables that name more folders, as `PATH` does.
const FOLDERS: [&str; 3] = ["LD_LIBRARY_PATH", "QEMU_MODULE_DIR", "METASERVICE_QEMU_PATHS"];

/// What one machine needs.
#[derive(Debug)]
pub(crate) struct Needs {
    /// QEMU, without links on the way to it.
    pub(crate) program: PathBuf,
    pub(super) devices: Vec<PathBuf>,
    /// Files and folders that are read, sorted.
    pub(super) reads: Vec<PathBuf>,
    /// Files and folders that are written.
    pub(super) writes: Vec<PathBuf>,
    /// Whether QEMU itself talks to the network.
    pub(super) network: bool,
    pub(super) exported: Option<Exported>,
}

/// A folder that the guest sees.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) folder: PathBuf,
    /// What is hidden of it, sorted, none within another.
    pub(super) hidden: Vec<PathBuf>,
    /// The file systems below it, sorted.
    pub(super) mounts: Vec<Mount>,
}

impl Needs {
    /// Those of a machine; `scratch` is a folder of QEMU's own temporary files, if it makes any.
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
                // QEMU opens a memory to read and write, even for a private view of it.
                writes.push(memory.clone());
                reads.extend(disk.clone());
            }
        }
        let kvm = accelerator.kvm.then_some("/dev/kvm");
        let devices =
            DEVICES.into_iter().chain(kvm).map(PathBuf::from).filter(|path| path.exists());
        let exported = match &spec.root {
            Root::Folder(folder) => Some(Exported::of(spec, folder)?),
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

    /// What a process of root's without capabilities could not read or write of this: files of
    /// others. In the user namespace it keeps the right to do that, and no other.
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
    fn of(spec: &MachineSpec, folder: &Path) -> Result<Self, InvalidSpec> {
        let folder = existing("the folder", folder)?;
        let hidden = spec.visibility.hidden(&folder, visibility::defaults())?;
        let mounts = mounts::below(&folder, &hidden, &spec.visibility.shown()?)
            .map_err(InvalidSpec::Mounts)?;
        Ok(Self { folder, hidden, mounts })
    }
}

fn existing(what: &'static str, path: &Path) -> Result<PathBuf, InvalidSpec> {
    path.canonicalize().map_err(|source| InvalidSpec::Path { what, path: path.to_owned(), source })
}

/// The folder of a program, and what usually stands beside it.
fn beside(program: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = program.parent().unwrap_or(program).to_owned();
    let above = folder.parent().map(Path::to_owned);
    let beside = above.into_iter().flat_map(|above| BESIDE.map(|name| above.join(name)));
    // A program at the top of a home directory: not with all that is in it.
    let own = if is_too_much(&folder) { program.to_owned() } else { folder };
    std::iter::once(own).chain(beside.filter(|path| path.exists() && !is_too_much(path)))
}

/// The folders that the environment names.
fn named() -> impl Iterator<Item = PathBuf> {
    let split = |value: OsString| std::env::split_paths(&value).collect::<Vec<_>>();
    let all = FOLDERS.into_iter().filter_map(std::env::var_os).flat_map(split);
    all.filter_map(|path| path.canonicalize().ok()).filter(|path| !is_too_much(path))
}

/// Whether a folder holds a home directory or the whole host.
fn is_too_much(folder: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.map(|home| home.canonicalize().unwrap_or(home));
    folder == Path::new("/") || home.is_some_and(|home| home.starts_with(folder))
}
