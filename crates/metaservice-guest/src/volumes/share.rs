//! A 9p device, and the driver that it needs.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::error::VolumeError;
use crate::system::root::mount as mount_with;

/// The driver, once it is loaded.
const DRIVER: &str = "/sys/bus/virtio/drivers/9pnet_virtio";

/// The flags of a volume: its files are data, and programs of the user who runs them.
pub(super) const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// A share is read and written in the largest messages that the transport takes. The host can
/// change the files meanwhile, so the kernel must not cache them: with `cache=loose` a file can
/// appear with its old length and new bytes.
const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=none";

/// As above. A program can also map a file into its memory and write to it there.
const WRITABLE_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap";

/// Mounts the share with a tag.
pub(super) fn mount(tag: &str, at: &Path, writable: bool) -> Result<(), VolumeError> {
    load_driver();
    let (flags, options) = if writable {
        (MountFlags::empty(), WRITABLE_OPTIONS)
    } else {
        (MountFlags::RDONLY, OPTIONS)
    };
    match mount_with(tag, at, "9p", flags | QUIET, options) {
        Ok(()) => Ok(()),
        Err(Errno::NODEV) => Err(VolumeError::NoDriver),
        Err(_) if !Path::new(DRIVER).exists() => Err(VolumeError::NoDriver),
        Err(error) => {
            Err(VolumeError::Mount { path: at.display().to_string(), source: error.into() })
        }
    }
}

/// Has an image load its modules. The kernel requests some of them by itself, but not each kernel
/// does. The init loads those of its own machines.
fn load_driver() {
    if Path::new(DRIVER).exists() {
        return;
    }
    for module in ["9pnet_virtio", "9p", "overlay"] {
        let mut command = Command::new("modprobe");
        command.arg("-q").arg(module).stdin(Stdio::null()).stdout(Stdio::null());
        let _ = command.stderr(Stdio::null()).status();
    }
}
