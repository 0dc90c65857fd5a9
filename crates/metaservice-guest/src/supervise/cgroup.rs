//! A control group for each command, if the kernel lets the agent create one.
//!
//! Owns creating, killing and removing it. With a control group, a whole process tree dies in one
//! step, however fast it forks. Without it (no cgroup v2, or no permission) the supervisor finds
//! the processes by descent.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::system::oom::counter;

const ROOT: &str = "/sys/fs/cgroup";

/// Below the agent's own group, so that a limit for the agent holds for its commands too.
const PARENT: &str = "metaservice";

/// A control group. Dropping it removes the group, unless a process still lives in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates a group; `None` if that is not possible.
    pub(super) fn create(name: &str) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own_group(&groups)?;
        let parent = Path::new(ROOT).join(own).join(PARENT);
        let path = parent.join(name);
        // The end of another command may remove the parent in between.
        let created = (0..3).any(|_| fs::create_dir_all(&path).is_ok());
        let group = Self { path };
        // If cgroup2 is not mounted, this is an ordinary directory without the kernel's files.
        (created && group.path.join("cgroup.kill").exists()).then_some(group)
    }

    /// A descriptor of the group, for a process that starts in it.
    pub(super) fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).ok()
    }

    /// Sends SIGKILL to all its processes.
    pub(super) fn kill(&self) -> bool {
        fs::write(self.path.join("cgroup.kill"), "1").is_ok()
    }

    /// How many of its processes the kernel has killed for lack of memory; `None` if the group has
    /// no memory controller.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        counter(&events, "oom_kill")
    }

    /// Moves the calling process into it.
    pub(super) fn enter(&self) {
        // A process outside of the group is still found by descent.
        let _ = fs::write(self.path.join("cgroup.procs"), "0");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
        // The last group removes the parent.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// The v2 line of `/proc/self/cgroup`, as a relative path.
fn own_group(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.split('/').any(|part| part == "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_group_is_found_among_others() {
        assert_eq!(own_group("0::/\n"), Some(""));
        assert_eq!(
            own_group("1:cpu:/a\n0::/system.slice/x.service\n"),
            Some("system.slice/x.service")
        );
        assert_eq!(own_group("1:cpu:/a\n"), None);
        assert_eq!(own_group("0::/../b\n"), None);
    }
}
