//! What a child does between fork and exec.
//!
//! Owns the use of `unsafe` for the start of processes. Between fork and exec only
//! async-signal-safe operations are allowed. So this code makes system calls on values that were
//! prepared before the fork. It allocates nothing and takes no lock. All paths are C strings by
//! then.
//!
//! The order matters. The kernel clears the death signal when credentials change, so it is set at
//! the beginning and again at the end. Mounts need capabilities, so these are dropped after the
//! mounts. A privileged caller mounts outside the new user namespace, so nothing inside it can undo
//! the mounts.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::process::set_parent_process_death_signal;
use rustix::process::{Pid, Signal, chdir, getpid, getppid, pivot_root};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, unshare_unsafe,
};

use super::handshake::{FAILED, MAP, READY};
use super::steps::{HOST, NOTHING, Step};
use crate::descriptors::lower_descriptors;

/// Arguments of `mount_setattr`: attributes to set, and a flag.
const READ_ONLY: u64 = 1;
const NO_SET_ID: u64 = 2;
const NO_DEVICES: u64 = 4;
const RECURSIVE: u32 = 0x8000;

/// The child's part of a confinement.
#[derive(Debug)]
pub(super) struct Entry {
    /// The child's end of the socket, and the parent's. The child closes the parent's end:
    /// otherwise it would not notice when the parent closes it.
    pub(super) child: RawFd,
    pub(super) parent: RawFd,
    /// Whether the caller may mount without a user namespace.
    pub(super) privileged: bool,
    /// The directory over which the new root is mounted.
    pub(super) base: CString,
    pub(super) steps: Arc<[Step]>,
    /// A directory in which the child waits and then ends. It executes nothing.
    pub(super) waits_at: Option<CString>,
    /// The capabilities that the child keeps within the user namespace.
    pub(super) kept: CapabilitySet,
}

/// Has the kernel kill the command when the calling thread ends. The command loses what it does not
/// need: the descriptors of the caller, privileges from programs that it executes, and, with an
/// entry, the files of the host.
pub(super) fn prepare(command: &mut Command, entry: Option<Entry>) {
    let parent = getpid();
    let hook = move || {
        die_with(parent)?;
        close_on_exec()?;
        lower_descriptors()?;
        if let Some(entry) = &entry {
            enter(entry)?;
        }
        set_no_new_privs(true)?;
        die_with(parent)
    };
    // SAFETY: the hook makes system calls on values that it owns, and compares numbers. It
    // allocates nothing and takes no lock. Its errors are numbers.
    unsafe { command.pre_exec(hook) };
}

/// Has the command inherit only its standard streams. Otherwise a pipe that this process inherited
/// would stay open until the command ends. The limit of open files is as before
/// [`raise_descriptors`](crate::raise_descriptors).
pub fn without_descriptors(command: &mut Command) {
    let hook = || {
        close_on_exec()?;
        lower_descriptors()
    };
    // SAFETY: the hook makes system calls on numbers. It allocates nothing and takes no lock.
    unsafe { command.pre_exec(hook) };
}

fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the parent died between the fork and the line above, the kernel sends no signal.
    if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
}

/// Marks all descriptors except the standard streams as close-on-exec. A later hook removes the
/// mark from those that the child must inherit.
fn close_on_exec() -> io::Result<()> {
    // SAFETY: this marks descriptors of this process, and closes none.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return Ok(());
    }
    // For a kernel before 5.11: as many descriptors as a process usually may have.
    for fd in 3..1024 {
        // SAFETY: a number that is not a descriptor gives an error.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

fn enter(entry: &Entry) -> Result<(), Errno> {
    // SAFETY: this process is a fork, so the number is its copy of the parent's end.
    unsafe { rustix::io::close(entry.parent) };
    // SAFETY: the descriptor was opened before the fork and stays open until exec.
    let sync = unsafe { BorrowedFd::borrow_raw(entry.child) };
    let mut apart =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWNET;
    if !entry.privileged {
        apart |= UnshareFlags::NEWUSER;
    }
    unshare(apart)?;
    if !entry.privileged {
        ask(sync, MAP)?;
    }
    new_root(entry, sync)?;
    if entry.privileged {
        unshare(UnshareFlags::NEWUSER)?;
        ask(sync, MAP)?;
    }
    if let Some(directory) = &entry.waits_at {
        chdir(directory.as_c_str())?;
        ask(sync, READY)?;
        return Err(Errno::CANCELED);
    }
    drop_capabilities(entry.kept)
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: this process has one thread, so it shares its descriptors with none.
    unsafe { unshare_unsafe(flags) }
}

/// Sends a message to the parent and waits for one byte. If the parent closes the socket, that is
/// an error.
fn ask(sync: BorrowedFd<'_>, what: u8) -> Result<(), Errno> {
    tell(sync, what, getpid().as_raw_nonzero().get())?;
    let mut answer = [0];
    loop {
        match rustix::io::read(sync, &mut answer) {
            Ok(1) => return Ok(()),
            Ok(_) => return Err(Errno::CANCELED),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn tell(sync: BorrowedFd<'_>, what: u8, number: i32) -> Result<(), Errno> {
    let number = number.to_ne_bytes();
    rustix::io::write(sync, &[what, number[0], number[1], number[2], number[3]]).map(drop)
}

fn new_root(entry: &Entry, sync: BorrowedFd<'_>) -> Result<(), Errno> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let base = entry.base.as_c_str();
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount(c"metaservice", base, c"tmpfs", quiet, c"mode=755,size=1m")?;
    chdir(base)?;
    mkdir(c".host")?;
    pivot_root(c".", c".host")?;
    chdir(c"/")?;
    file(NOTHING)?;
    for (number, step) in entry.steps.iter().enumerate() {
        if let Err(error) = take(step) {
            let _ = tell(sync, FAILED, i32::try_from(number).unwrap_or(i32::MAX));
            return Err(error);
        }
    }
    unmount(HOST, UnmountFlags::DETACH)?;
    unlinkat(CWD, HOST, AtFlags::REMOVEDIR)?;
    read_only(c"/", false)
}

fn take(step: &Step) -> Result<(), Errno> {
    match step {
        Step::Directory(at) => mkdir(at),
        Step::File(at) => file(at),
        Step::Link { to, at } => symlinkat(to.as_c_str(), CWD, at.as_c_str()).or_else(there),
        Step::Bind { from, at, below: true } => {
            mount_bind_recursive(from.as_c_str(), at.as_c_str())
        }
        Step::Bind { from, at, below: false } => mount_bind(from.as_c_str(), at.as_c_str()),
        Step::ReadOnly(at) => read_only(at, true),
        Step::Hide { at, empty } => {
            match mount_bind(empty.as_c_str(), at.as_c_str()) {
                Err(Errno::NOTDIR) => mount_bind(NOTHING, at.as_c_str())?,
                // It was removed meanwhile.
                Err(Errno::NOENT) => return Ok(()),
                other => other?,
            }
            read_only(at, false)
        }
        Step::Share { at, writable: true } => set_attributes(at, NO_SET_ID | NO_DEVICES, true),
        Step::Share { at, writable: false } => {
            set_attributes(at, READ_ONLY | NO_SET_ID | NO_DEVICES, true)
        }
    }
}

fn mkdir(at: &CStr) -> Result<(), Errno> {
    mkdirat(CWD, at, Mode::from_raw_mode(0o755)).or_else(there)
}

fn file(at: &CStr) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(CWD, at, flags, Mode::from_raw_mode(0o444)).map(drop).or_else(there)
}

/// Accepts an existing file, as in a directory that was mounted.
fn there(error: Errno) -> Result<(), Errno> {
    if matches!(error, Errno::EXIST | Errno::ROFS) { Ok(()) } else { Err(error) }
}

fn read_only(at: &CStr, below: bool) -> Result<(), Errno> {
    set_attributes(at, READ_ONLY | NO_SET_ID, below)
}

/// Sets attributes of a mount, and with `below` of all mounts below it.
fn set_attributes(at: &CStr, attributes: u64, below: bool) -> Result<(), Errno> {
    let attributes: [u64; 4] = [attributes, 0, 0, 0];
    let flags = if below { RECURSIVE } else { 0 };
    // SAFETY: the kernel reads a path and 32 bytes of attributes, and keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if done == 0 {
        return Ok(());
    }
    // SAFETY: this is the location of the thread's error number.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

fn drop_capabilities(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The number is above the kernel's last capability.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
}
