//! Guests for the tests: real machines whose init is a short shell script.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metaservice_qemu::{Boot, Machine, MachineSpec, ModuleNeed, Tools, find, initramfs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The first lines of each init.
const PROLOGUE: &str = "#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
cat /lib/metaservice/modules /lib/metaservice/modules.later | while read module; do insmod $module; done
";

/// How long a guest may take for each operation. Emulation on a busy host is slow.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn tools() -> Tools {
    find().require().unwrap_or_else(|missing| panic!("{missing}: {}", missing.hint))
}

/// A machine whose init runs `script`.
pub(crate) fn with_script(script: &str) -> MachineSpec {
    with_modules(script, &[])
}

pub(crate) fn with_modules(script: &str, needs: &[ModuleNeed]) -> MachineSpec {
    let tools = tools();
    // Not the user's cache: files of tests would displace the user's.
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

/// Waits for a line on the console. If it does not come, shows the console.
pub(crate) async fn hear(machine: &Machine, text: &str) {
    let console = machine.console();
    let heard = tokio::time::timeout(TIMEOUT, console.wait_for(text)).await;
    assert_eq!(heard, Ok(true), "{text:?} never came; the console said {:#?}", console.tail(40));
}

/// The handle of a process, even if another process has its id later.
pub(crate) fn handle(process_id: u32) -> OwnedFd {
    let pid = Pid::from_raw(process_id.try_into().unwrap()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

/// Waits until a process has ended.
pub(crate) fn assert_ends(handle: &OwnedFd) {
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1, "the process is still there");
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}
