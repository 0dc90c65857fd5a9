//! The mounts of this machine's own init, and a new root for them.
//!
//! Owns the change of the root. The kernel's file systems are moved, not mounted again. So nothing
//! that was opened or mounted in them is lost.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_move};

/// Where a new root is mounted.
pub(crate) const NEW_ROOT: &str = "/sysroot";

/// The tmpfs of the init with all files in memory. The agent has its layers there, and removes the
/// mount if the job needs none.
pub(crate) const SCRATCH: &str = "/.metaservice";

/// The file systems that are moved to the new root.
const KEPT: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// Makes what is mounted at [`NEW_ROOT`] the root of this process and all its later children.
pub(crate) fn enter() -> io::Result<()> {
    for name in KEPT {
        let target = Path::new(NEW_ROOT).join(name);
        let _ = std::fs::create_dir(&target);
        mount_move(Path::new("/").join(name), &target)?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Mounts a file system whose options are text.
pub(crate) fn mount(
    what: &str,
    at: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(what, at, kind, flags, &*options)
}
