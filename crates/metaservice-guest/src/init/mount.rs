//! File systems: the kernel's own, those in memory, and the one that becomes `/`.
//!
//! Owns the mount table from the initramfs to the root of the agent. The agent mounts the volumes
//! of the job, and one of them can become its root.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use super::boot_arguments::Root;
use crate::diagnostics::{print, with_causes};
use crate::system::root::{self, NEW_ROOT, SCRATCH};

/// Where the agent of root keeps its state.
const STATE: &str = "/run/metaservice";

/// Why a file system was not mounted.
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

/// Mounts the kernel's own file systems.
pub(super) fn kernel_file_systems() -> Result<(), MountError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    at("proc", "/proc", "proc", quiet, c"")?;
    at("sysfs", "/sys", "sysfs", quiet, c"")?;
    at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"mode=755,size=1m,nr_inodes=2048")?;
    let terminal = MountFlags::NOSUID | MountFlags::NOEXEC;
    at("devpts", "/dev/pts", "devpts", terminal, c"mode=620,gid=5,ptmxmode=666")?;
    // Without it, the processes of a command are found by descent.
    let _ = at("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, c"");
    for (link, to) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let _ = std::os::unix::fs::symlink(to, Path::new("/dev").join(link));
    }
    Ok(())
}

/// Mounts the file systems in memory: `/run`, `/tmp`, `/dev/shm`, and below [`SCRATCH`] the layers
/// of volumes.
///
/// They are one tmpfs, so one limit holds for all of them together. If the initramfs stays the
/// root, it has a limit of its own. If both are full, there is still memory for processes.
pub(super) fn memory_file_systems(root: &Root) -> Result<(), MountError> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = memory_available(&meminfo).unwrap_or_default();
    let room = Room::of(available, matches!(root, Root::Initramfs));
    // Large pages for large files. A kernel without them rejects the option.
    let options = format!("mode=755,size={}k,nr_inodes={}", room.shared, inodes(room.shared));
    let options = |more: &str| CString::new(format!("{options}{more}")).unwrap_or_default();
    let none = MountFlags::empty();
    at("tmpfs", SCRATCH, "tmpfs", none, &options(",huge=within_size"))
        .or_else(|_| at("tmpfs", SCRATCH, "tmpfs", none, &options("")))?;
    for (name, target, mode) in
        [("run", "/run", 0o755), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)]
    {
        let source = Path::new(SCRATCH).join(name);
        let made = fs::create_dir(&source).and_then(|()| fs::create_dir_all(target));
        made.map_err(MountError::Prepare)?;
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&source, mode).map_err(MountError::Prepare)?;
        let failed = |error: Errno| MountError::Mount {
            what: source.display().to_string(),
            at: target,
            source: error.into(),
        };
        mount_bind(&source, target).map_err(failed)?;
        let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        mount_remount(target, flags, c"").map_err(failed)?;
    }
    // A file system of its own: when a command has filled all others, its ending is still written.
    let private = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    at("tmpfs", STATE, "tmpfs", private, c"mode=700,size=16m")?;
    if let Some(initramfs) = room.initramfs {
        let (used, files) = rustix::fs::statvfs("/").map_or((0, 0), |fs| {
            let used = fs.f_blocks.saturating_sub(fs.f_bfree).saturating_mul(fs.f_frsize) >> 10;
            (used, fs.f_files.saturating_sub(fs.f_ffree))
        });
        let size = used.saturating_add(initramfs);
        let options = format!("size={size}k,nr_inodes={}", files.saturating_add(inodes(initramfs)));
        // Without tmpfs, the kernel's root has no limit.
        let options = CString::new(options).unwrap_or_default();
        let _ = mount_remount("/", MountFlags::empty(), &*options);
        // The kernel lets all users write to it.
        fs::set_permissions("/", fs::Permissions::from_mode(0o755)).map_err(MountError::Prepare)?;
    }
    Ok(())
}

/// The most memory that `/dev` takes, in KiB: its size and its inodes.
const DEVICES: u64 = 3 * 1024;

/// The limit of files for a size in KiB: one per page. Each takes about one KiB more.
fn inodes(size: u64) -> u64 {
    // 0 would be no limit.
    (size / 4).max(1)
}

/// How much of a machine's memory files may take, in KiB.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    /// All files but those of the initramfs.
    shared: u64,
    /// The files that are added to the initramfs, if it stays the root.
    initramfs: Option<u64>,
}

impl Room {
    /// Leaves a quarter of the `available` memory to processes, and at least 32 MiB, or half of it
    /// if that is less. This holds even with the most possible files and a full `/dev`.
    fn of(available: u64, initramfs_is_root: bool) -> Self {
        let processes = (32 * 1024).min(available / 2);
        let rest = available.saturating_sub(processes + DEVICES);
        // An empty file takes a quarter of a page. A size of 0 would be no limit.
        let files = (available / 4 * 3).min(rest / 5 * 4).max(2);
        if initramfs_is_root {
            let initramfs = files * 2 / 5;
            Self { shared: files - initramfs, initramfs: Some(initramfs) }
        } else {
            Self { shared: files, initramfs: None }
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in KiB.
fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
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
        Root::Initramfs => Ok(()),
        Root::Disk => {
            mount_disk()?;
            root::enter().map_err(MountError::Prepare)
        }
    }
}

/// Follows the agent to a root that it has mounted over the root of this process. A path that leads
/// above the root ends at what is mounted there.
pub(super) fn follow_root() {
    let followed = std::env::set_current_dir("/..")
        .and_then(|()| Ok(rustix::process::chroot(".")?))
        .and_then(|()| std::env::set_current_dir("/"));
    if let Err(error) = followed {
        print(&format!("cannot follow the agent to its root: {}", with_causes(&error)));
    }
}

fn mount_disk() -> Result<(), MountError> {
    let disk = first(names("/sys/block"), "vd").ok_or(MountError::NoDisk)?;
    let inside = names(&format!("/sys/block/{disk}"));
    let mut partitions: Vec<String> =
        inside.into_iter().filter(|name| name.starts_with(&disk)).collect();
    partitions.sort();
    // A disk without partitions may be one file system.
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

/// Mounts a partition, and keeps it mounted if it looks like a root.
fn try_root(device: &Path, kind: &str, options: &str) -> bool {
    let options = CString::new(options).unwrap_or_default();
    // Silent: a file system of another kind is not an error to print.
    if mount(device, NEW_ROOT, kind, MountFlags::SILENT, &*options).is_err() {
        return false;
    }
    if looks_like_root(Path::new(NEW_ROOT)) {
        return true;
    }
    let _ = unmount(NEW_ROOT, UnmountFlags::empty());
    false
}

fn looks_like_root(directory: &Path) -> bool {
    let is = |name: &str| directory.join(name).is_dir();
    is("etc") && (is("sbin") || is("usr"))
}

/// The kernel's file systems that are stored on disks.
fn disk_kinds(file_systems: &str) -> impl Iterator<Item = &str> {
    file_systems.lines().filter_map(|line| line.strip_prefix('\t')).map(str::trim)
}

/// The mount options to try. With btrfs, distributions put their root into a subvolume.
fn options_for(kind: &str) -> &'static [&'static str] {
    if kind == "btrfs" { &["", "subvol=@", "subvol=root"] } else { &[""] }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn first(names: Vec<String>, prefix: &str) -> Option<String> {
    names.into_iter().filter(|name| name.starts_with(prefix)).min()
}

/// Unmounts every file system on a disk, or makes it read-only, so that it needs no repair.
pub(super) fn release_disks() {
    rustix::fs::sync();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for target in on_disks(&mounts).into_iter().rev() {
        let root = target == Path::new("/");
        if root || unmount(&target, UnmountFlags::empty()).is_err() {
            let _ = mount_remount(&target, MountFlags::RDONLY, c"");
        }
    }
}

/// The mount points of file systems on disks, in the order in which they were mounted.
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
    fn files_leave_memory_for_processes_in_a_machine_of_any_size() {
        for mebibytes in [0, 1, 20, 64, 100, 1000, 1 << 20] {
            let available = mebibytes * 1024;
            for root in [false, true] {
                let room = Room::of(available, root);
                let files = room.shared + room.initramfs.unwrap_or_default();
                assert!(room.shared > 0, "{room:?}: 0 is no limit");
                let names = inodes(room.shared) + room.initramfs.map_or(0, inodes);
                if mebibytes >= 20 {
                    let taken = files + names + DEVICES;
                    let kept = (32 * 1024).min(available / 2);
                    assert!(files <= available * 3 / 4, "{room:?} of {available}");
                    assert!(taken + kept <= available, "{room:?} of {available}");
                    assert!(files + DEVICES >= available * 2 / 5, "{room:?} of {available}");
                }
            }
        }
        assert_eq!(Room::of(100 * 1024, false), Room { shared: 53_248, initramfs: None });
        assert_eq!(Room::of(870 << 10, false).shared, 870 * 1024 / 4 * 3);
        let text = "MemTotal:      983756 kB\nMemFree: 1 kB\nMemAvailable:     871556 kB\n";
        assert_eq!(memory_available(text), Some(871_556));
        assert_eq!(memory_available("MemAvailable: much"), None);
    }

    #[test]
    fn the_first_disk_is_the_first_by_name() {
        let names = ["vdb", "loop0", "vda", "sr0"].map(String::from).to_vec();
        assert_eq!(first(names, "vd").as_deref(), Some("vda"));
        assert_eq!(first(vec!["sda".into()], "vd"), None);
    }

    #[test]
    fn mount_points_of_disks_are_found_in_order() {
        let mounts = "overlay / overlay rw 0 0\n/dev/vda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/vdb /mnt/a\\040b xfs rw 0 0\n";
        assert_eq!(on_disks(mounts), [PathBuf::from("/"), "/mnt/a b".into()]);
    }

    #[test]
    fn a_root_has_etc_and_programs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!looks_like_root(directory.path()));
        fs::create_dir(directory.path().join("etc")).unwrap();
        assert!(!looks_like_root(directory.path()));
        fs::create_dir(directory.path().join("usr")).unwrap();
        assert!(looks_like_root(directory.path()));
    }
}
