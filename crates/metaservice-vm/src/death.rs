//! Makes a child die with its parent, however the parent ends.
//!
//! Owns the one use of `unsafe` in this crate: the hook between fork and exec. It refuses
//! to be used from a thread that may end before the child: the kernel sends the signal when
//! the *thread* that forked ends, so [`process`](crate::process) gives every child a thread.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Has the kernel kill the command's process when the calling thread ends.
pub(crate) fn with_us(command: &mut Command) {
    let parent = getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died between fork and the line above sends no signal any more.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The hook makes
    // two system calls and compares two numbers: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(hook) };
}
