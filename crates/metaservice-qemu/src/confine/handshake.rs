//! The parent's part while a child confines itself.
//!
//! A child in a new user namespace cannot write its own user mapping, so the parent writes it. A
//! child that only holds mounts reports when they are made, and ends when the parent closes the
//! socket.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// The child is in its user namespace, and needs a user mapping.
pub(super) const MAP: u8 = b'm';

/// The child has made its mounts, and is in the directory.
pub(super) const READY: u8 = b'r';

/// A step failed. Its number follows, and the child ends.
pub(super) const FAILED: u8 = b'f';

/// What the child reported.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The directory of the child, and its mounts.
    pub(super) held: Option<Held>,
    /// The step that failed.
    pub(super) failed: Option<usize>,
}

/// A directory with mounts of its own.
#[derive(Debug)]
pub(crate) struct Held {
    /// The directory.
    pub(crate) directory: OwnedFd,
    /// The mount namespace. Without it, the mounts in the directory would vanish.
    pub(crate) mounts: OwnedFd,
}

/// Answers a child until it executes its program, or ends.
pub(super) fn attend(mut sync: UnixStream, privileged: bool) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut message = [0; 5];
    loop {
        match sync.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(seen),
            Err(error) => return Err(error),
        }
        let [what, pid @ ..] = message;
        let pid = i32::from_ne_bytes(pid);
        match what {
            FAILED => seen.failed = usize::try_from(pid).ok(),
            MAP => {
                map(pid, privileged)?;
                sync.write_all(b"k")?;
            }
            READY => {
                let open = |name: &str, flags| {
                    openat(CWD, format!("/proc/{pid}/{name}"), flags, Mode::empty())
                };
                let directory = open("cwd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
                let mounts = open("ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC)?;
                seen.held = Some(Held { directory, mounts });
                return Ok(seen);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Writes the user mapping of a namespace. A privileged process maps all users to themselves,
/// another one maps its own user alone.
fn map(pid: i32, privileged: bool) -> io::Result<()> {
    let write = |name: &str, text: &str| {
        // A single write, because the kernel accepts no second one.
        File::options().write(true).open(format!("/proc/{pid}/{name}"))?.write_all(text.as_bytes())
    };
    if privileged {
        write("uid_map", &identity(&fs::read_to_string("/proc/self/uid_map")?))?;
        return write("gid_map", &identity(&fs::read_to_string("/proc/self/gid_map")?));
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    write("setgroups", "deny")?;
    write("uid_map", &format!("{user} {user} 1"))?;
    write("gid_map", &format!("{group} {group} 1"))
}

/// A mapping of each user of a map to itself.
fn identity(map: &str) -> String {
    let mut lines = String::new();
    for line in map.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(first), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            lines.extend([first, " ", first, " ", count, "\n"]);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_keeps_its_number() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity(" 0 1000 1\n 1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
