//! The signal dispositions of this process, whatever its parent had set.
//!
//! A child inherits ignored and blocked signals. With an ignored SIGCHLD, the kernel reaps children
//! by itself, and a wait for them fails.

#![allow(unsafe_code)]

use std::io;

/// The signals that are set to their defaults. SIGHUP, SIGINT, SIGQUIT and SIGTERM are left out:
/// `nohup` and background jobs of a shell ignore them on purpose. SIGPIPE belongs to the Rust
/// runtime.
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

/// Sets defined signal dispositions and an empty signal mask. Call it once, at the start of `main`,
/// before any thread or signal handler exists: it removes handlers.
///
/// # Errors
/// None on a working Linux.
pub fn reset_signals() -> io::Result<()> {
    // QEMU uses a real-time signal.
    for signal in RESET.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: the default disposition is not a function, so nothing can be called at a bad
        // time.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: an all-zero set is valid, and is emptied before it is read. The kernel reads it and
    // keeps no reference.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}
