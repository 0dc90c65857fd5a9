//! Forking this process.
//!
//! Owns the only fork of the program. After a fork, a process with several threads may do almost
//! nothing before it execs: another thread may have held a lock or changed the heap. Supervisors
//! and the [fork server](mod@super::fork_server) have one thread each. So their child runs
//! ordinary code, and a fork replaces the start of a program, which takes longer.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fs, io, process};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};
use nix::unistd::{ForkResult, Pid as NixPid, fork};
use rustix::process::Pid;

/// Whether the C library is GNU's. Others may send signals to the thread id that they remember.
const GNU: bool = cfg!(target_env = "gnu");

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const INTO_CGROUP: u64 = 1 << 33;

/// The signals that a supervisor handles. Its child resets them, because it would ignore them until
/// it execs.
const HANDLED: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// Ends a child that would unwind into the code of its parent.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        process::abort();
    }
}

/// Forks a child that does `work` and exits with the returned status.
///
/// The child starts in the control group, if one is given and the kernel can do that; `work` gets
/// whether it did. Signals have their default action in the child.
///
/// # Errors
/// The kernel's, and one for a process with several threads.
pub(super) fn fork_child(
    group: Option<BorrowedFd<'_>>,
    work: impl FnOnce(bool) -> u8,
) -> io::Result<Pid> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads cannot fork"));
    }
    // Signals are blocked until the child has reset their handlers.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: what a forked child may not do, it may not do because of other threads: they may have
    // held a lock or the heap. This process has one thread, which is here and starts no other.
    let forked = unsafe { fork_within(group) };
    if let Ok((ForkResult::Child, _)) = forked {
        for name in HANDLED {
            // SAFETY: this sets no handler, and the previous handlers are not needed.
            let _ = unsafe { signal(name, SigHandler::SigDfl) };
        }
    }
    // The mask was valid before, so this succeeds. The child must not return from here on.
    let _ = before.thread_set_mask();
    let (forked, within) = forked?;
    match forked {
        ForkResult::Parent { child } => {
            Pid::from_raw(child.as_raw()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        ForkResult::Child => {
            let _guard = AbortOnUnwind;
            process::exit(work(within).into())
        }
    }
}

/// Forks into the group if possible, and returns whether it did.
///
/// # Safety
/// As for [`fork`].
unsafe fn fork_within(group: Option<BorrowedFd<'_>>) -> io::Result<(ForkResult, bool)> {
    // SAFETY: the caller's promise is the same.
    if let Some(Ok(forked)) = group.filter(|_| GNU).map(|group| unsafe { fork_into(group) }) {
        return Ok((forked, true));
    }
    // SAFETY: as above.
    Ok((unsafe { fork() }?, false))
}

/// Forks into a control group (clone3(2), Linux 5.7). To move the child there later would wait
/// until all processors have taken note of it, which takes the kernel several ticks.
///
/// # Safety
/// As for [`fork`], with GNU's C library. The library does not notice this fork: in the child it
/// has the thread id of the parent, which it uses only for locks between threads.
unsafe fn fork_into(group: BorrowedFd<'_>) -> io::Result<ForkResult> {
    // SAFETY: a structure of numbers, for which zero is the default.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    arguments.cgroup = group.as_raw_fd().cast_unsigned().into();
    // SAFETY: the arguments live as long as the call, and the child shares no memory with it.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(child) if child > 0 => Ok(ForkResult::Parent { child: NixPid::from_raw(child) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_does_not_fork() {
        // Tests run on threads.
        let error = fork_child(None, |_| 0).unwrap_err();
        assert!(error.to_string().contains("several threads"), "{error}");
    }
}
