//! A control group of its own for each command, where the kernel lets us have one.
//!
//! Owns making, killing and removing it. With it a whole tree dies in one step, however fast
//! it forks; without it (no cgroup v2, or not ours to write) the supervisor goes by descent.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::system::oom::counter;

const ROOT: &str = "/sys/fs/cgroup";

/// Below the agent's own group, so that whoever limits the agent limits its commands too.
const PARENT: &str = "metaservice";

/// A control group. It is removed when this is dropped, unless something still lives in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group; `None` where that is not possible.
    pub(crate) fn make(name: &str) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own_group(&groups)?;
        let parent = Path::new(ROOT).join(own).join(PARENT);
        let path = parent.join(name);
        // Another one's end may take the parent away in between.
        let made = (0..3).any(|_| fs::create_dir_all(&path).is_ok());
        let group = Self { path };
        // A folder that the kernel did not fill is no group: cgroup2 is not mounted here.
        (made && group.path.join("cgroup.kill").exists()).then_some(group)
    }

    /// The group, to start a process in.
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).ok()
    }

    /// Sends SIGKILL to all that lives in it.
    pub(crate) fn kill(&self) -> bool {
        fs::write(self.path.join("cgroup.kill"), "1").is_ok()
    }

    /// How many of its processes the kernel has killed for lack of memory; `None` where the group
    /// does not count them, as it has no memory controller.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        counter(&events, "oom_kill")
    }

    /// Moves the calling process into it.
    pub(crate) fn enter(&self) {
        // Who cannot be moved is still found by descent.
        let _ = fs::write(self.path.join("cgroup.procs"), "0");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
        // The last one takes the parent with it.
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
    fn the_v2_group_is_found_among_the_others() {
        assert_eq!(own_group("0::/\n"), Some(""));
        assert_eq!(
            own_group("1:cpu:/a\n0::/system.slice/x.service\n"),
            Some("system.slice/x.service")
        );
        assert_eq!(own_group("1:cpu:/a\n"), None);
        assert_eq!(own_group("0::/../b\n"), None);
    }
}
