//! The power button, and the way to power off.
//!
//! Owns the input devices and the order of a stop: everyone is asked to end, waited for, and
//! killed; then the disks are let go of, and the machine is turned off.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitOptions};
use rustix::system::{RebootCommand, reboot};
use tokio::signal::unix::Signal as SignalStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::mount;
use crate::supervise::{KILL_GRACE, signal_process};
use crate::system::descriptor::Descriptor;
use crate::system::processes::{self, Process};

/// How long everyone may take to end: what a supervisor gives its command, and some.
const STOP_GRACE: Duration = KILL_GRACE.saturating_add(Duration::from_secs(2));

/// How long the killed may take to be gone.
const KILLED_GRACE: Duration = Duration::from_secs(2);

/// An input event is two words of time, type, code and value.
const EVENT: usize = 2 * size_of::<usize>() + 8;
const KEY_EVENT: u16 = 1;
const POWER_KEY: u16 = 116;

/// Reports every press of a power button that the machine has now.
pub(super) fn button() -> mpsc::Receiver<()> {
    let (pressed, presses) = mpsc::channel(1);
    for entry in fs::read_dir("/dev/input").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(b"event") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(device) = rustix::fs::open(entry.path(), flags, Mode::empty()) {
            tokio::spawn(watch(device, pressed.clone()));
        }
    }
    presses
}

async fn watch(device: OwnedFd, pressed: mpsc::Sender<()>) {
    let Ok(device) = Descriptor::new(device) else { return };
    let mut events = [0; EVENT * 64];
    loop {
        let Ok(mut ready) = device.readable().await else { return };
        match ready.try_io(|device| Ok(rustix::io::read(device, &mut events)?)) {
            Ok(Ok(count)) if count > 0 => {
                if events[..count].chunks_exact(EVENT).any(is_press) {
                    // One that waits is enough.
                    let _ = pressed.try_send(());
                }
            }
            Ok(_gone) => return,
            Err(_would_block) => {}
        }
    }
}

fn is_press(event: &[u8]) -> bool {
    let Some((_, [a, b, c, d, value @ ..])) = event.split_at_checked(EVENT - 8) else {
        return false;
    };
    u16::from_ne_bytes([*a, *b]) == KEY_EVENT
        && u16::from_ne_bytes([*c, *d]) == POWER_KEY
        && value == 1i32.to_ne_bytes()
}

/// Ends every process but this one. `ended` tells of the end of children.
pub(super) async fn end_everyone(ended: &mut SignalStream) {
    for (signal, grace) in [(Signal::TERM, STOP_GRACE), (Signal::KILL, KILLED_GRACE)] {
        for process in processes::all().unwrap_or_default().iter().filter(|p| is_user(p)) {
            let _ = signal_process(process, signal);
        }
        let deadline = Instant::now() + grace;
        // Every orphan is a child of ours, so nobody is left when there are no children.
        while has_children() {
            if timeout_at(deadline, ended.recv()).await.is_err() {
                break;
            }
        }
    }
}

/// Neither the init nor the kernel's own.
fn is_user(process: &Process) -> bool {
    const KERNEL: i32 = 2;
    process.pid != 1 && process.pid != KERNEL && process.parent != KERNEL
}

fn has_children() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_no_child) => return false,
        }
    }
}

/// Turns the machine off. The first process never returns: the kernel would call it a panic.
pub(super) fn off() -> ! {
    mount::let_go_of_disks();
    // What was said last is still on its way out of the serial port.
    let _ = rustix::termios::tcdrain(rustix::stdio::stderr());
    loop {
        let _ = reboot(RebootCommand::PowerOff);
        let _ = reboot(RebootCommand::Halt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![7; EVENT - 8];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 30, 1), event(0, 116, 1), vec![1; 3]] {
            assert!(!is_press(&other));
        }
    }

    #[test]
    fn the_kernel_and_the_init_are_not_asked_to_end() {
        let process =
            |pid, parent| Process { pid, parent, start: 0, zombie: false, exiting: false };
        assert!(is_user(&process(80, 1)));
        assert!(!is_user(&process(1, 0)) && !is_user(&process(2, 0)) && !is_user(&process(9, 2)));
    }
}
