//! Guests for the tests: real machines whose init is a few lines of shell.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metaservice_qemu::{Boot, Machine, MachineSpec, ModuleNeed, Tools, find, initramfs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What every init does first.
const PROLOGUE: &str = "#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
cat /lib/metaservice/modules /lib/metaservice/modules.later | while read module; do insmod $module; done
";

/// How long a guest may take for anything. Emulation on a busy host is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn tools() -> Tools {
    find().require().unwrap_or_else(|missing| panic!("{missing}: {}", missing.hint))
}

/// A machine whose init runs `script`.
pub(crate) fn with_script(script: &str) -> MachineSpec {
    with_modules(script, &[])
}

pub(crate) fn with_modules(script: &str, needs: &[ModuleNeed]) -> MachineSpec {
    let tools = tools();
    // Not the user's cache: the tests' files would push the user's own out.
    let cache = std::env::var_os("METASERVICE_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()).join("initramfs");
    let mut contents =
        initramfs::Contents::new(format!("{PROLOGUE}{script}").into_bytes(), &tools).cache(cache);
    for need in needs {
        contents = contents.need(*need);
    }
    let initramfs = initramfs::build(&contents).unwrap();
    MachineSpec::new(&tools.qemu, Boot::from_kernel(&tools.kernel).initramfs(initramfs))
}

pub(crate) async fn start(spec: MachineSpec) -> Machine {
    Machine::start(spec).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for a line on the console, and shows the console if it does not come.
pub(crate) async fn hear(machine: &Machine, text: &str) {
    let console = machine.console();
    let heard = tokio::time::timeout(PATIENCE, console.wait_for(text)).await;
    assert_eq!(heard, Ok(true), "{text:?} never came; the console said {:#?}", console.tail(40));
}

/// A process's handle, which stays its own when its number is another's.
pub(crate) fn handle(process_id: u32) -> OwnedFd {
    let pid = Pid::from_raw(process_id.try_into().unwrap()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

/// Waits until a process has ended.
pub(crate) fn assert_ends(handle: &OwnedFd) {
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ended, 1, "the process is still there");
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}
