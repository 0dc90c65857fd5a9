//! A layer in memory over a share: what the guest writes stays there.
//!
//! Owns the overlays. All layers are in one tmpfs. In a machine of this agent's init, that is the
//! tmpfs of all files in memory, with its limit. In any other machine, it is a new one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, openat, setxattr, statvfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};

use super::error::VolumeError;
use super::share;
use crate::diagnostics::print;
use crate::system::names::NameFile;
use crate::system::root::{SCRATCH, mount as mount_with};

/// The directories of the layers. Each layer has a number.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Stays valid when the root is changed.
    directory: Option<OwnedFd>,
    count: usize,
}

impl Layers {
    /// Opens the tmpfs for the layers. `root`: the root of the machine becomes one of them.
    pub(super) fn open(root: bool, state: &Path) -> Result<Self, VolumeError> {
        let scratch = Path::new(SCRATCH);
        let path = if is_mount_point(scratch) {
            if root {
                give_room_of_root(scratch);
            }
            scratch.to_owned()
        } else {
            let own = state.join("layers");
            let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&own);
            made.map_err(VolumeError::Layer)?;
            mount_with("metaservice", &own, "tmpfs", MountFlags::empty(), "mode=700")
                .map_err(|error| VolumeError::Layer(error.into()))?;
            own
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, &path, flags, Mode::empty())
            .map_err(|error| VolumeError::Layer(error.into()))?;
        Ok(Self { directory: Some(directory), count: 0 })
    }

    /// Mounts the share with a tag below a new layer.
    pub(super) fn mount(&mut self, tag: &str, at: &Path) -> Result<(), VolumeError> {
        let paths = self.add(tag)?;
        overlay(&paths, at, share::QUIET)
    }

    /// Mounts the share with a tag below a new layer, as the next root of the machine. The layer
    /// has the files of names of the present root.
    pub(super) fn mount_root(&mut self, tag: &str, at: &Path) -> Result<(), VolumeError> {
        let paths = self.add(tag)?;
        let [lower, upper, _] = &paths;
        for file in NameFile::ALL {
            if let Some(content) = file.read()
                && let Err(error) = file.put(&content, lower, upper)
            {
                print(&format!("the root has its own {}: {error}", file.path()));
            }
        }
        overlay(&paths, at, MountFlags::empty())
    }

    /// Creates a layer, and mounts its share.
    fn add(&mut self, tag: &str) -> Result<[PathBuf; 3], VolumeError> {
        let paths = self.create().map_err(VolumeError::Layer)?;
        let [lower, upper, _] = &paths;
        share::mount(tag, lower, false)?;
        prepare(lower, upper).map_err(VolumeError::Layer)?;
        Ok(paths)
    }

    /// Creates the directories of a layer.
    fn create(&mut self) -> io::Result<[PathBuf; 3]> {
        let directory = self.directory.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let base = format!("/proc/self/fd/{}/layer-{}", directory.as_raw_fd(), self.count);
        self.count += 1;
        let base = PathBuf::from(base);
        fs::DirBuilder::new().mode(0o700).create(&base)?;
        let paths = ["lower", "upper", "work"].map(|name| base.join(name));
        paths.iter().try_for_each(fs::create_dir)?;
        Ok(paths)
    }
}

/// Mounts the overlay of a layer.
fn overlay(paths: &[PathBuf; 3], at: &Path, flags: MountFlags) -> Result<(), VolumeError> {
    let [lower, upper, work] = paths.each_ref().map(|path| path.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    match mount_with("overlay", at, "overlay", flags, &options) {
        Ok(()) => Ok(()),
        Err(Errno::NODEV) => Err(VolumeError::NoOverlay),
        Err(error) => {
            Err(VolumeError::Mount { path: at.display().to_string(), source: error.into() })
        }
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev());
    let (Ok(own), Ok(root)) = (device(path), device(Path::new("/"))) else { return false };
    own != root
}

/// Gives the layers the room that the init has reserved for its own root, which is not used any
/// more. So all files in memory have one limit, whether the machine was booted or restored.
fn give_room_of_root(scratch: &Path) {
    let (Ok(layers), Ok(root)) = (statvfs(scratch), statvfs("/")) else { return };
    let kibibytes = |blocks: u64, size: u64| blocks.saturating_mul(size) >> 10;
    let size = kibibytes(layers.f_blocks, layers.f_frsize) + kibibytes(root.f_bfree, root.f_frsize);
    let files = layers.f_files + root.f_ffree;
    let remount = |at: &Path, size: u64, files: u64| {
        let options = std::ffi::CString::new(format!("size={size}k,nr_inodes={files}"));
        let options = options.unwrap_or_default();
        mount_remount(at, MountFlags::empty(), &*options)
    };
    let used = kibibytes(root.f_blocks - root.f_bfree.min(root.f_blocks), root.f_frsize);
    // The root keeps its files. One without a limit stays as it is.
    if root.f_blocks > 0
        && remount(Path::new("/"), used, root.f_files - root.f_ffree.min(root.f_files)).is_err()
    {
        return;
    }
    let _ = remount(scratch, size, files);
}

/// Gives a layer the attributes of its share, and covers what the share does not let a guest enter.
fn prepare(lower: &Path, upper: &Path) -> io::Result<()> {
    let metadata = File::open(lower)?.metadata()?;
    chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    for entry in fs::read_dir(lower)?.flatten() {
        cover(&entry.path(), &upper.join(entry.file_name()))?;
    }
    Ok(())
}

/// Covers a directory of the share that is a mount point on the host, if QEMU does not let the
/// guest enter it. `/proc` is one. Without an empty directory in its place, each use of the name
/// in the overlay would fail.
fn cover(lower: &Path, upper: &Path) -> io::Result<()> {
    match fs::symlink_metadata(lower) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {}
        _ => return Ok(()),
    }
    fs::create_dir(upper)?;
    let nothing = XattrFlags::empty();
    Ok(setxattr(upper, "trusted.overlay.opaque", b"y", nothing)?)
}
