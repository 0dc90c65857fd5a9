//! The power button, and the way to power off.
//!
//! Owns the input devices and the order of a stop: all processes get SIGTERM, then SIGKILL. Then
//! the disks are released, and the machine is turned off.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::process::{Signal, WaitOptions};
use rustix::system::{RebootCommand, reboot};
use tokio::signal::unix::Signal as SignalStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::mount;
use crate::supervise::KILL_GRACE;
use crate::system::descriptor::Descriptor;
use crate::system::processes::{self, Process};

/// How long processes may take to end: the grace period of a command, and two seconds.
const STOP_GRACE: Duration = KILL_GRACE.saturating_add(Duration::from_secs(2));

/// How long killed processes may take to be gone.
const KILLED_GRACE: Duration = Duration::from_secs(2);

/// The size of an input event: two words of time, type, code and value.
const EVENT: usize = 2 * size_of::<usize>() + 8;
const KEY_EVENT: u16 = 1;
const POWER_KEY: u16 = 116;

/// The power buttons that the machine had when this was created. Dropping it closes them.
pub(super) struct PowerButtons(JoinSet<bool>);

impl PowerButtons {
    /// `devices` is `/dev`. Its path can change meanwhile, with the root.
    pub(super) fn open(devices: BorrowedFd<'_>) -> Self {
        let mut watching = JoinSet::new();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let input = openat(devices, "input", flags | OFlags::DIRECTORY, Mode::empty());
        let Ok(input) = input else { return Self(watching) };
        for entry in Dir::read_from(&input).into_iter().flatten().flatten() {
            if !entry.file_name().to_bytes().starts_with(b"event") {
                continue;
            }
            if let Ok(device) = openat(&input, entry.file_name(), flags, Mode::empty()) {
                watching.spawn(press(device));
            }
        }
        Self(watching)
    }

    /// Completes when a power button is pressed. Without one it never completes. Cancel-safe.
    pub(super) async fn pressed(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            if ended.unwrap_or(false) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Waits until the power key of an input device is pressed; `false` if the device is gone.
async fn press(device: OwnedFd) -> bool {
    let Ok(device) = Descriptor::new(device) else { return false };
    let mut events = [0; EVENT * 64];
    loop {
        let Ok(mut ready) = device.readable().await else { return false };
        match ready.try_io(|device| Ok(rustix::io::read(device, &mut events)?)) {
            Ok(Ok(count)) if count > 0 => {
                if events[..count].chunks_exact(EVENT).any(is_press) {
                    return true;
                }
            }
            Ok(_gone) => return false,
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

/// Ends all processes but this one. `child_ended` is SIGCHLD.
pub(super) async fn end_processes(child_ended: &mut SignalStream) {
    for (signal, grace) in [(Signal::TERM, STOP_GRACE), (Signal::KILL, KILLED_GRACE)] {
        for process in processes::all().unwrap_or_default().iter().filter(|p| is_user(p)) {
            let _ = process.signal(signal);
        }
        let deadline = Instant::now() + grace;
        // A process whose parent has ended is a child of the init. So without children, no process
        // is left.
        while has_children() {
            if timeout_at(deadline, child_ended.recv()).await.is_err() {
                break;
            }
        }
    }
}

/// Whether a process is neither the init nor a kernel thread.
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

/// Turns the machine off. Never returns: the kernel panics when its first process ends.
pub(super) fn off() -> ! {
    mount::release_disks();
    // The serial port may still send the last lines.
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

    #[tokio::test]
    async fn a_press_completes_and_the_end_of_other_devices_does_not() {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let ((button, key), (keyboard, gone)) = (pipe(), pipe());
        drop(gone);
        let mut watching = JoinSet::new();
        watching.spawn(press(keyboard));
        watching.spawn(press(button));
        let mut buttons = PowerButtons(watching);
        let mut event = vec![7; EVENT - 8];
        event.extend([KEY_EVENT.to_ne_bytes(), POWER_KEY.to_ne_bytes()].concat());
        event.extend(1i32.to_ne_bytes());
        rustix::io::write(&key, &event).unwrap();
        buttons.pressed().await;
    }

    #[test]
    fn kernel_threads_and_the_init_are_not_ended() {
        let process =
            |pid, parent| Process { pid, parent, start: 0, zombie: false, exiting: false };
        assert!(is_user(&process(80, 1)));
        assert!(!is_user(&process(1, 0)) && !is_user(&process(2, 0)) && !is_user(&process(9, 2)));
    }
}
