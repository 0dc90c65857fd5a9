//! What this process does about signals, whatever its parent had set up.
//!
//! A parent that ignores SIGCHLD hands that on: the kernel then reaps children by itself, and the
//! one that waits for them finds none. A blocked signal is handed on too.

#![allow(unsafe_code)]

use std::io;

/// Set to their defaults. SIGHUP, SIGINT, SIGQUIT and SIGTERM are not: `nohup` and a shell's
/// background jobs mean what they ignore. SIGPIPE is the runtime's.
const RESET: [libc::c_int; 20] = [
    libc::SIGCHLD,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSTKFLT,
    libc::SIGSYS,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Starts from defined signal dispositions and an empty mask. To be called once, at the start of
/// `main`, before any thread and any handler: it would take handlers away.
///
/// # Errors
/// None on a Linux that is in order.
pub fn reset_signals() -> io::Result<()> {
    // QEMU uses one of those that have no names.
    for signal in RESET.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: the default disposition is no function that could be called at a bad time.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: an all-zero set is a valid one, and is made empty before it is read; the kernel
    // reads it and keeps no reference.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}
