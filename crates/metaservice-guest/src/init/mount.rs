//! File systems: the kernel's own, and what becomes `/`.
//!
//! Owns the mount table from the empty initramfs to the command's root. What the kernel's file
//! systems have in them stays where it is when the root changes: they are moved along, so
//! nothing that was opened or mounted before is lost.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, mount_remount, unmount};

use super::boot_arguments::Root;

/// Where the coming root is put together.
const NEW_ROOT: &str = "/sysroot";

/// The read-only layer below a shared root, and the scratch layer above it.
const LOWER: &str = "/lower";
const SCRATCH: &str = "/scratch";

/// Moved along when the root changes.
const KEPT: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// A shared folder is read in the largest pieces that the transport takes. It does not change
/// under a job as far as the job is concerned, so what was read once is kept.
const SHARED_OPTIONS: &CStr = c"trans=virtio,version=9p2000.L,msize=512000,cache=loose";

/// A file system that could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    #[error("cannot mount {what} at {at}")]
    Mount { what: String, at: &'static str, source: io::Error },
    #[error("cannot prepare the root")]
    Prepare(#[source] io::Error),
    #[error("the machine has no virtio disk")]
    NoDisk,
    #[error("no partition of {0} looks like a root: it has /etc, and /sbin or /usr")]
    NoRoot(String),
}

/// Mounts what the kernel offers.
pub(super) fn kernel_file_systems() -> Result<(), MountError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let open = MountFlags::NOSUID | MountFlags::NODEV;
    at("proc", "/proc", "proc", quiet, c"")?;
    at("sysfs", "/sys", "sysfs", quiet, c"")?;
    at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"mode=755")?;
    at("tmpfs", "/run", "tmpfs", open, c"mode=755")?;
    // Large pages for what is known to become large; a kernel without them takes no such option.
    at("tmpfs", "/tmp", "tmpfs", open, c"mode=1777,huge=within_size")
        .or_else(|_| at("tmpfs", "/tmp", "tmpfs", open, c"mode=1777"))?;
    let terminal = MountFlags::NOSUID | MountFlags::NOEXEC;
    at("devpts", "/dev/pts", "devpts", terminal, c"mode=620,gid=5,ptmxmode=666")?;
    at("tmpfs", "/dev/shm", "tmpfs", open, c"mode=1777")?;
    // Without it commands are found by descent.
    let _ = at("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, c"");
    for (link, to) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let _ = std::os::unix::fs::symlink(to, Path::new("/dev").join(link));
    }
    Ok(())
}

fn at(
    what: &str,
    at: &'static str,
    kind: &str,
    flags: MountFlags,
    options: &CStr,
) -> Result<(), MountError> {
    let _ = fs::create_dir_all(at);
    mount(what, at, kind, flags, options).map_err(|error| MountError::Mount {
        what: what.to_owned(),
        at,
        source: error.into(),
    })
}

/// Makes `root` the root of this process and all its children.
pub(super) fn enter(root: &Root) -> Result<(), MountError> {
    match root {
        Root::Initramfs => return Ok(()),
        Root::Shared(tag) => mount_shared(tag)?,
        Root::Disk => mount_disk()?,
    }
    for name in KEPT {
        let target = Path::new(NEW_ROOT).join(name);
        let _ = fs::create_dir(&target);
        mount_move(Path::new("/").join(name), &target).map_err(prepare)?;
    }
    std::env::set_current_dir(NEW_ROOT).map_err(MountError::Prepare)?;
    mount_move(".", "/").map_err(prepare)?;
    rustix::process::chroot(".").map_err(prepare)?;
    std::env::set_current_dir("/").map_err(MountError::Prepare)
}

fn prepare(error: rustix::io::Errno) -> MountError {
    MountError::Prepare(error.into())
}

fn mount_shared(tag: &str) -> Result<(), MountError> {
    at(tag, LOWER, "9p", MountFlags::RDONLY, SHARED_OPTIONS)?;
    at("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), c"mode=755")?;
    for layer in ["upper", "work"] {
        fs::create_dir(Path::new(SCRATCH).join(layer)).map_err(MountError::Prepare)?;
    }
    let options = c"lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work";
    at("overlay", NEW_ROOT, "overlay", MountFlags::empty(), options)
}

fn mount_disk() -> Result<(), MountError> {
    let disk = first(names("/sys/block"), "vd").ok_or(MountError::NoDisk)?;
    let inside = names(&format!("/sys/block/{disk}"));
    let mut partitions: Vec<String> =
        inside.into_iter().filter(|name| name.starts_with(&disk)).collect();
    partitions.sort();
    // A disk without partitions may be a file system as a whole.
    if partitions.is_empty() {
        partitions.push(disk.clone());
    }
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for partition in &partitions {
        for kind in disk_kinds(&kinds) {
            for options in options_for(kind) {
                if try_root(&Path::new("/dev").join(partition), kind, options) {
                    return Ok(());
                }
            }
        }
    }
    Err(MountError::NoRoot(disk))
}

/// Mounts a partition; keeps it only if it looks like a root.
fn try_root(device: &Path, kind: &str, options: &str) -> bool {
    let options = CString::new(options).unwrap_or_default();
    // What does not fit is no news for the console.
    if mount(device, NEW_ROOT, kind, MountFlags::SILENT, &*options).is_err() {
        return false;
    }
    if looks_like_root(Path::new(NEW_ROOT)) {
        return true;
    }
    let _ = unmount(NEW_ROOT, UnmountFlags::empty());
    false
}

fn looks_like_root(folder: &Path) -> bool {
    let is = |name: &str| folder.join(name).is_dir();
    is("etc") && (is("sbin") || is("usr"))
}

/// The file systems of the kernel that live on disks.
fn disk_kinds(file_systems: &str) -> impl Iterator<Item = &str> {
    file_systems.lines().filter_map(|line| line.strip_prefix('\t')).map(str::trim)
}

/// Distributions put their root into a subvolume where there are such.
fn options_for(kind: &str) -> &'static [&'static str] {
    if kind == "btrfs" { &["", "subvol=@", "subvol=root"] } else { &[""] }
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn first(names: Vec<String>, prefix: &str) -> Option<String> {
    names.into_iter().filter(|name| name.starts_with(prefix)).min()
}

/// Leaves every file system on a disk in a state that needs no repair.
pub(super) fn let_go_of_disks() {
    rustix::fs::sync();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for target in on_disks(&mounts).into_iter().rev() {
        let root = target == Path::new("/");
        if root || unmount(&target, UnmountFlags::empty()).is_err() {
            let _ = mount_remount(&target, MountFlags::RDONLY, c"");
        }
    }
}

/// Where file systems of disks are mounted, in the order in which they were.
fn on_disks(mounts: &str) -> Vec<PathBuf> {
    let lines = mounts.lines().filter(|line| line.starts_with("/dev/"));
    let targets = lines.filter_map(|line| line.split(' ').nth(1));
    targets.map(|target| PathBuf::from(target.replace("\\040", " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_of_disks_are_tried() {
        let text = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tvfat\nnodev\t9p\n\tbtrfs\n";
        assert_eq!(disk_kinds(text).collect::<Vec<_>>(), ["ext4", "vfat", "btrfs"]);
        assert_eq!((options_for("ext4").len(), options_for("btrfs").len()), (1, 3));
    }

    #[test]
    fn the_first_disk_is_the_first_by_name() {
        let names = ["vdb", "loop0", "vda", "sr0"].map(String::from).to_vec();
        assert_eq!(first(names, "vd").as_deref(), Some("vda"));
        assert_eq!(first(vec!["sda".into()], "vd"), None);
    }

    #[test]
    fn disks_are_let_go_of_in_reverse() {
        let mounts = "overlay / overlay rw 0 0\n/dev/vda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/vdb /mnt/a\\040b xfs rw 0 0\n";
        assert_eq!(on_disks(mounts), [PathBuf::from("/"), "/mnt/a b".into()]);
    }

    #[test]
    fn a_root_has_etc_and_programs() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!looks_like_root(folder.path()));
        fs::create_dir(folder.path().join("etc")).unwrap();
        assert!(!looks_like_root(folder.path()));
        fs::create_dir(folder.path().join("usr")).unwrap();
        assert!(looks_like_root(folder.path()));
    }
}
