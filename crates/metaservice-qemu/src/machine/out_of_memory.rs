//! Whether the host has killed processes because it had no memory left.
//!
//! Owns the counters. The kernel counts such kills for each control group and for the whole host,
//! but does not say which process it killed. So the result is a guess, and is worded as one.

use std::fs;
use std::path::{Path, PathBuf};

/// The counters at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kills {
    /// In the control group of this process, in which QEMU is too.
    group: u64,
    /// On the whole host.
    host: u64,
}

/// Which memory was exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutOfMemory {
    /// The control group reached its memory limit.
    Limit,
    /// The host had no memory left.
    Host,
}

impl Kills {
    /// The current values. 0 if the host does not count.
    pub(crate) fn now() -> Self {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let groups = read(Path::new("/proc/self/cgroup"));
        let group = places(&groups).iter().filter_map(|path| value(&read(path))).max();
        let host = value(&read(Path::new("/proc/vmstat")));
        Self { group: group.unwrap_or_default(), host: host.unwrap_or_default() }
    }

    /// Which memory was exhausted since an earlier time, if any.
    pub(crate) fn since(self, earlier: Self) -> Option<OutOfMemory> {
        if self.group > earlier.group {
            Some(OutOfMemory::Limit)
        } else if self.host > earlier.host {
            Some(OutOfMemory::Host)
        } else {
            None
        }
    }
}

/// The files with the counters of a process's control groups, of both versions.
fn places(groups: &str) -> Vec<PathBuf> {
    let place = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let group_of = |mount: &str, file: &str| Path::new(mount).join(group).join(file);
        match controllers {
            "" => Some(vec![
                group_of("/sys/fs/cgroup", "memory.events"),
                group_of("/sys/fs/cgroup/unified", "memory.events"),
            ]),
            names if names.split(',').any(|name| name == "memory") => {
                Some(vec![group_of("/sys/fs/cgroup/memory", "memory.oom_control")])
            }
            _ => None,
        }
    };
    groups.lines().filter_map(place).flatten().collect()
}

fn value(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_in_both_versions() {
        let one = "9:name=systemd:/\n4:memory:/a/b\n0::/\n";
        assert_eq!(
            places(one),
            [
                "/sys/fs/cgroup/memory/a/b/memory.oom_control",
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/unified/memory.events"
            ]
            .map(PathBuf::from)
        );
        let events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(value(events), Some(1));
        assert_eq!(value("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"), Some(12));
        assert_eq!(value("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn only_what_is_counted_meanwhile_counts() {
        let kills = |group, host| Kills { group, host };
        assert_eq!(kills(3, 9).since(kills(3, 9)), None);
        assert_eq!(kills(4, 10).since(kills(3, 9)), Some(OutOfMemory::Limit));
        assert_eq!(kills(3, 10).since(kills(3, 9)), Some(OutOfMemory::Host));
    }
}
