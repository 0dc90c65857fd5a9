//! A copy of this process.
//!
//! Owns the crate's only fork. A program with several threads may do next to nothing between fork
//! and exec, as any of the others can have been copied in the midst of something. Supervisors and
//! the [zygote](super::fork_server) have one thread each, so a copy of theirs is a whole process: it
//! runs ordinary code, and what would cost the start of a program costs a fork.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fs, io, process};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};
use nix::unistd::{ForkResult, Pid as NixPid, fork};
use rustix::process::Pid;

/// Whether the C library is GNU's. Others may signal a thread by the number that they remember.
const GNU: bool = cfg!(target_env = "gnu");

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const INTO_CGROUP: u64 = 1 << 33;

/// What a supervisor handles. Its copy has no use for it, and would lose what it is sent until its
/// program begins.
const HANDLED: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

/// Ends the process that would unwind into what it was copied from.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        process::abort();
    }
}

/// Starts a copy of this process, in a control group of its own or in the same, that does `work`
/// and ends with its status. `work` is told whether it is in that group: not everywhere can a
/// process be started in one. Signals do to the copy what they do by default.
///
/// # Errors
/// Those of the kernel; and one for a process that has more than one thread.
pub(super) fn copy(
    group: Option<BorrowedFd<'_>>,
    work: impl FnOnce(bool) -> u8,
) -> io::Result<Pid> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads cannot be copied"));
    }
    // SAFETY: what a copy may not do, it may not because of other threads: they may have held a
    // lock or the heap. This process has one thread, which is here and starts no other before it
    // forks.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: as said above.
    let forked = unsafe { fork_within(group) };
    if let Ok((ForkResult::Child, _)) = forked {
        for name in HANDLED {
            // SAFETY: no handler is set, and what was one is not needed.
            let _ = unsafe { signal(name, SigHandler::SigDfl) };
        }
    }
    // It was one, so it is one; and the copy must not go back from here.
    let _ = before.thread_set_mask();
    let (forked, within) = forked?;
    match forked {
        ForkResult::Parent { child } => {
            Pid::from_raw(child.as_raw()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        ForkResult::Child => {
            let _guard = NoWayBack;
            process::exit(work(within).into())
        }
    }
}

/// Forks, into the group if that can be; whether it was.
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

/// Forks into a control group (clone3(2), Linux 5.7). To move there afterwards waits until all
/// processors have taken note, which takes the kernel several of its ticks.
///
/// # Safety
/// As for [`fork`], with GNU's C library. It does not hear of it: its copy goes by the number of the
/// thread that it was copied from, which it uses for locks between threads only.
unsafe fn fork_into(group: BorrowedFd<'_>) -> io::Result<ForkResult> {
    // SAFETY: a structure of numbers, of which zero is the default.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    arguments.cgroup = group.as_raw_fd().cast_unsigned().into();
    // SAFETY: the arguments live as long as the call, which shares no memory with the copy.
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
    fn a_process_with_threads_is_not_copied() {
        // Tests run on threads.
        let refused = copy(None, |_| 0).unwrap_err();
        assert!(refused.to_string().contains("several threads"), "{refused}");
    }
}
