//! Finds the processes that a test has started, and their descendants.
//!
//! A process inherits the environment of its parent. So a mark in the environment also finds
//! processes that have detached themselves. This module owns no process: it reads `/proc`.

use std::fs;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::wait::TIMEOUT;

/// The beginning of an environment variable that only the processes of one test have.
#[derive(Debug, Clone)]
pub struct Mark(String);

impl Mark {
    /// `text` is the beginning of `NAME=VALUE`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the ids of the processes that have the mark.
    pub fn pids(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter_map(Pid::from_raw).filter(|pid| self.is_on(*pid)).collect()
    }

    fn is_on(&self, pid: Pid) -> bool {
        let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
        let environment = fs::read(path).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(self.0.as_bytes()))
    }

    /// Returns the command lines of the processes that have the mark.
    pub fn command_lines(&self) -> Vec<String> {
        self.pids().into_iter().filter_map(command_line).collect()
    }

    /// Waits until each process that has the mark now has ended.
    pub fn wait_for_exits(&self) {
        self.pids().into_iter().for_each(wait_for_exit);
    }

    /// Waits until each process has ended that has the mark now, and such a command line.
    pub fn wait_for_exits_of(&self, is_wanted: impl Fn(&str) -> bool) {
        let wanted = |pid: &Pid| command_line(*pid).is_some_and(|line| is_wanted(&line));
        self.pids().into_iter().filter(wanted).for_each(wait_for_exit);
    }

    /// Kills the processes that have the mark.
    pub fn kill(&self) {
        for pid in self.pids() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Fails if a process has the mark.
    #[track_caller]
    pub fn assert_none(&self) {
        assert_eq!(self.command_lines(), Vec::<String>::new(), "processes are left behind");
    }
}

/// Returns the command line of a process, or `None` if the process has ended.
pub fn command_line(pid: Pid) -> Option<String> {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    Some(String::from_utf8_lossy(&line).replace('\0', " "))
}

/// Whether a process exists and is no zombie. `pid` is a number in decimal.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

/// Waits until a process has ended. `pid` is a number in decimal.
#[cfg(feature = "host")]
pub async fn exited(pid: &str) {
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
    tokio::task::spawn_blocking(move || wait_for_exit(pid)).await.unwrap();
}

/// Waits until `child` ends, for at most `time`. Returns its exit status, or `None` if it still
/// runs.
pub fn wait_within(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let time = time.try_into().unwrap();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&time)).unwrap();
    child.try_wait().unwrap()
}

fn wait_for_exit(pid: Pid) {
    // A process that cannot be opened has ended.
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let timeout = TIMEOUT.try_into().unwrap();
        let events = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(events, 1, "process {} does not end", pid.as_raw_nonzero());
    }
}
