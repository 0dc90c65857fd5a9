//! The process table, read from `/proc`.
//!
//! Owns the format of `stat` files, the identity of a process, and the search for descendants. A
//! process id can be reused between reading and signalling. So signals go through a pidfd, and
//! only after the start time was compared.

use std::collections::HashMap;
use std::{fs, io};

use metaservice_protocol::ActionId;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One row of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// When it was started, in clock ticks after boot.
    pub(crate) start: u64,
    /// Whether it has ended, and its parent has not waited for it yet.
    pub(crate) zombie: bool,
    /// Whether it is ending. Its files may be closed already, and its death signals not sent yet.
    pub(crate) exiting: bool,
}

/// Identifies one process of all boots, for another process that looks for it later.
///
/// A process id alone is reused. The triple is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// In clock ticks after boot.
    pub(crate) start: u64,
    pub(crate) boot: String,
}

impl ProcessIdentity {
    /// The identity as a name, for example of a log stream.
    pub(crate) fn as_id(&self) -> Option<ActionId> {
        let Self { pid, start, boot } = self;
        ActionId::parse(&format!("{}-{pid}-{start}", boot.trim())).ok()
    }
}

/// `PF_EXITING` of `linux/sched.h`.
const EXITING: u32 = 0x4;

impl Process {
    /// The process with this id, if there is one.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The process with this identity, if it still runs.
    pub(crate) fn find_same(identity: &ProcessIdentity) -> Option<Self> {
        let found = Self::find(identity.pid)?;
        let same = found.start == identity.start && identity.boot == boot_id() && !found.zombie;
        same.then_some(found)
    }

    /// The identity of the calling process.
    pub(crate) fn own_identity() -> Option<ProcessIdentity> {
        Self::find(rustix::process::getpid().as_raw_pid()).map(Self::identity)
    }

    pub(crate) fn identity(self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, start: self.start, boot: boot_id() }
    }

    /// Sends a signal to this process, never to a later process with the same id.
    ///
    /// # Errors
    /// `SRCH` if the process has ended, else the kernel's error.
    pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        if Self::find(self.pid).is_none_or(|now| now.start != self.start) {
            return Err(Errno::SRCH);
        }
        pidfd_send_signal(fd, signal)
    }

    /// Reads `pid (name) state parent ...`. The name can contain parentheses and line ends.
    fn parse(stat: &[u8]) -> Option<Self> {
        let open = stat.iter().position(|&c| c == b'(')?;
        let close = stat.iter().rposition(|&c| c == b')')?;
        let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let zombie = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        let start = fields.nth(12)?.parse().ok()?;
        Some(Self { pid, parent, start, zombie, exiting: flags & EXITING != 0 })
    }
}

/// All processes that `/proc` shows.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(Process::find).collect())
}

/// The living descendants of a process, parents before their children.
pub(crate) fn descendants(ancestor: Pid) -> io::Result<Vec<Process>> {
    Ok(below(ancestor.as_raw_pid(), &all()?))
}

fn below(ancestor: i32, table: &[Process]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    // Each list of children is used once, so the loop ends even for an inconsistent table.
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).into_iter().flatten() {
            open.push(child.pid);
            if !child.zombie && child.pid != ancestor {
                found.push(*child);
            }
        }
    }
    found
}

/// The kernel's identifier of this boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, start: 0, zombie: false, exiting: false }
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat =
            b"42 (a) R 1 (b) S\n) Z 7 42 42 0 -1 4194308 1 0 0 0 1 2 0 0 20 0 1 0 777 4096 1";
        let expected = Process { pid: 42, parent: 7, start: 777, zombie: true, exiting: true };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse(b"42 (a"), None);
        assert_eq!(Process::parse(b")("), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = Process::find(rustix::process::getpid().as_raw_pid()).unwrap();
        assert_eq!(Some(own.parent), rustix::process::getppid().map(Pid::as_raw_pid));
        assert!(own.start > 0 && !own.zombie && !own.exiting);
        assert!(all().unwrap().contains(&own));
        assert_eq!(boot_id().len(), 36);
    }

    #[test]
    fn descendants_are_found_below_zombies_too() {
        let mut table =
            vec![process(9, 8), process(2, 1), process(3, 2), process(8, 3), process(5, 1)];
        table[3].zombie = true;
        let pids = |of| below(of, &table).iter().map(|found| found.pid).collect::<Vec<_>>();
        assert_eq!(pids(2), [3, 9]);
        assert_eq!(pids(9), [] as [i32; 0]);
    }

    proptest! {
        #[test]
        fn no_stat_and_no_table_panics(
            stat in proptest::collection::vec(any::<u8>(), 0..80),
            pairs in proptest::collection::vec((0i32..8, 0i32..8), 0..20),
        ) {
            let _ = Process::parse(&stat);
            let table: Vec<Process> = pairs.into_iter().map(|(a, b)| process(a, b)).collect();
            prop_assert!(below(1, &table).iter().all(|found| found.pid != 1));
        }
    }
}
