//! A cgroup for each attempt, with its share of the processors, where the host allows it.
//!
//! ```text
//!   the cgroup of the process       the worker may change it: "cpu" is for the groups below
//!   ├── worker                      cpu.weight 10000: the worker renews its lease on a busy host
//!   ├── job.WORKER.ID.ATTEMPT       cpu.weight 100: the machine of a job
//!   └── job.WORKER.ID.ATTEMPT       cpu.weight 800: one with two processors, of the class high
//! ```
//!
//! The kernel allows no process beside groups with a controller, so the worker moves itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::name::{JobId, WorkerName};
use crate::request::Priority;

/// The group of the worker itself. A unit of systemd may have it as its `DelegateSubgroup=`.
const LEAF: &str = "worker";

/// The largest weight that the kernel takes.
const MAX_WEIGHT: u32 = 10_000;

/// How long the processes of a group may take to end.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there are no groups for jobs. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupsError {
    /// The host has no cgroups of version 2, or this process does not see its own.
    #[error("this process sees no cgroup of version 2 of its own")]
    NoCgroup,
    /// The cgroup does not have the controller.
    #[error("the cgroup {} has no cpu controller", .0.display())]
    NoController(PathBuf),
    /// The cgroup is not this worker's: it may not change it, or other processes are in it.
    #[error("cannot use {}", path.display())]
    Files {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// The cgroup of this process, if it may make groups in it. Each attempt then has a group with a
/// `cpu.weight`: 100 for each processor of its machine, four times as much for the class high, a
/// quarter for low, at most 10,000.
#[derive(Debug, Clone)]
pub struct Groups {
    base: PathBuf,
    /// How the names of this worker's groups begin.
    prefix: String,
}

impl Groups {
    /// Takes over the cgroup (v2) of this process, which moves to the group `worker` in it, with a
    /// weight of 10,000. If it is in a group of this name already, its parent is taken. Processes
    /// that it starts later begin in the group `worker`. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the host has not delegated the cgroup to this process alone, with the controller `cpu`.
    pub fn delegated(worker: &WorkerName) -> Result<Self, GroupsError> {
        let groups = read(Path::new("/proc/self/cgroup"))?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let own = own_group(&groups, &mounts).ok_or(GroupsError::NoCgroup)?;
        Self::take(&own, std::process::id(), worker)
    }

    fn take(own: &Path, process: u32, worker: &WorkerName) -> Result<Self, GroupsError> {
        let is_leaf = own.file_name().is_some_and(|name| name == LEAF);
        let base = own.parent().filter(|_| is_leaf).unwrap_or(own);
        if !read(&base.join("cgroup.controllers"))?.split_whitespace().any(|name| name == "cpu") {
            return Err(GroupsError::NoController(base.to_owned()));
        }
        let leaf = base.join(LEAF);
        make(&leaf)?;
        let process = process.to_string();
        let (members, controllers) =
            (leaf.join("cgroup.procs"), base.join("cgroup.subtree_control"));
        let taken = write(&members, &process)
            .or_else(|error| match &error {
                // A killed worker left the controller: with a process beside it, no group takes any.
                GroupsError::Files { cause, .. } if cause.kind() == io::ErrorKind::Unsupported => {
                    write(&controllers, "-cpu").and_then(|()| write(&members, &process))
                }
                _ => Err(error),
            })
            .and_then(|()| write(&controllers, "+cpu"))
            .and_then(|()| write(&leaf.join("cpu.weight"), &MAX_WEIGHT.to_string()));
        if let Err(error) = taken {
            let _ = write(&own.join("cgroup.procs"), &process);
            let _ = fs::remove_dir(&leaf);
            return Err(error);
        }
        Ok(Self { base: base.to_owned(), prefix: format!("job.{worker}.") })
    }

    /// Removes what a killed worker of the same name left. Its machines ended with it.
    pub(super) fn remove_left(&self) {
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        for entry in entries {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&self.prefix)) {
                remove(&entry.path());
            }
        }
    }

    /// Makes the group of an attempt.
    pub(super) fn group(
        &self,
        id: &JobId,
        attempt: u32,
        weight: u32,
    ) -> Result<Group, GroupsError> {
        let group = Group(self.base.join(format!("{}{id}.{attempt}", self.prefix)));
        make(&group.0)?;
        write(&group.0.join("cpu.weight"), &weight.to_string())?;
        Ok(group)
    }
}

/// The group of an attempt. Dropping it removes it, if its processes have ended.
pub(super) struct Group(PathBuf);

impl Group {
    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    /// Waits until its processes have ended, at most 5 s, and removes it.
    ///
    /// Cancellation: it is left if it has processes. The next worker of the name removes it.
    pub(super) async fn close(self) {
        match tokio::time::timeout(EMPTY_TIMEOUT, emptied(&self.0)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a cgroup tells no changes"),
            Err(_) => tracing::warn!(group = %self.0.display(), "processes are left in a cgroup"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Completes when no process is in the group.
async fn emptied(group: &Path) -> io::Result<()> {
    let events = File::open(group.join("cgroup.events"))?;
    #[expect(deprecated, reason = "sound for a File, and this crate has no unsafe code")]
    let events = AsyncFd::with_interest(events, Interest::PRIORITY)?;
    loop {
        let mut text = [0; 256];
        let length = events.get_ref().read_at(&mut text, 0)?;
        if !text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1") {
            return Ok(());
        }
        // The kernel tells a change since the last reading.
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

/// The weight of a machine with so many processors.
pub(super) fn weight(priority: Priority, cpus: u32) -> u32 {
    let usual = cpus.saturating_mul(100);
    let weight = match priority {
        Priority::High => usual.saturating_mul(4),
        Priority::Normal => usual,
        Priority::Low => usual / 4,
    };
    weight.clamp(1, MAX_WEIGHT)
}

/// The directory of the process's own cgroup, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    let is_visible = own.components().all(|part| part != Component::ParentDir);
    let directory = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root).ok()?;
        // Without the separator at the end of an empty path.
        let directory = Path::new(point).join(below).components().collect();
        filesystem.starts_with("cgroup2 ").then_some(directory)
    };
    mounts.lines().find_map(directory).filter(|_| is_visible)
}

fn read(path: &Path) -> Result<String, GroupsError> {
    fs::read_to_string(path).map_err(|cause| GroupsError::Files { path: path.to_owned(), cause })
}

fn write(path: &Path, text: &str) -> Result<(), GroupsError> {
    fs::write(path, text).map_err(|cause| GroupsError::Files { path: path.to_owned(), cause })
}

fn make(group: &Path) -> Result<(), GroupsError> {
    match fs::create_dir(group) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            Err(GroupsError::Files { path: group.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

fn remove(group: &Path) {
    if let Err(error) = fs::remove_dir(group) {
        tracing::debug!(group = %group.display(), %error, "a cgroup is left");
    }
}

#[cfg(test)]
mod tests;
