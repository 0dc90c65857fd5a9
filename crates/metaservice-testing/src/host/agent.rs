//! The real agent, as a process that works for the host of a test.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::job::Host;
use crate::processes::Mark;
use crate::wait::TIMEOUT;

const MARK: &str = "METASERVICE_TEST";

/// The real agent, with a state directory of its own.
///
/// Dropping it kills the agent and each process that it has started: a job outlives its agent by
/// design.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    child: Child,
    host: Host,
    directory: tempfile::TempDir,
}

impl Agent {
    /// Starts `program`, the agent, with `host`.
    pub async fn start(program: &str, host: &Host) -> Self {
        Self::start_with(program, host, &[], &[]).await
    }

    /// Starts `program` with more options and environment.
    pub async fn start_with(
        program: &str,
        host: &Host,
        options: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = spawn(program.as_ref(), host, directory.path(), options, env);
        Self { program: program.into(), child, host: host.clone(), directory }
    }

    /// Kills the agent, and none of the processes that it has started.
    pub async fn crash(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts the agent again with the same state directory.
    pub fn restart(&mut self, options: &[&str]) {
        self.child = spawn(&self.program, &self.host, self.directory.path(), options, &[]);
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The process id of the agent, which runs.
    pub fn pid(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    /// Waits until the agent ends.
    pub async fn exit_status(&mut self) -> ExitStatus {
        timeout(TIMEOUT, self.child.wait()).await.expect("the end of the agent").unwrap()
    }

    /// Stops the agent as a service manager does, and checks that nothing is left and that the
    /// agent has kept the protocol.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
        }
        assert!(self.exit_status().await.success());
        self.assert_nothing_left();
        self.host.assert_strict();
    }

    /// Fails if a process or a file of a shell is left.
    pub fn assert_nothing_left(&self) {
        self.mark().assert_none();
        let names = std::fs::read_dir(self.state()).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().into_string().unwrap());
        let shell = names.find(|name| name.starts_with("shell-"));
        assert_eq!(shell, None, "a file of a shell is left");
    }

    /// Fails if a process other than the agent or its supervisor is left.
    pub fn assert_no_job_left(&self) {
        let mut left = self.processes();
        left.retain(|line| is_of_job(line));
        assert!(left.is_empty(), "left running: {left:?}");
    }

    /// Waits until no process other than the agent or its supervisor is left.
    pub fn wait_for_no_job(&self) {
        self.mark().wait_for_exits_of(is_of_job);
    }

    /// The command lines of the agent and of each process that it has started.
    pub fn processes(&self) -> Vec<String> {
        self.mark().command_lines()
    }

    fn mark(&self) -> Mark {
        Mark::new(format!("{MARK}={}", self.directory.path().display()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.mark().kill();
    }
}

fn is_of_job(line: &str) -> bool {
    !line.contains("metaservice-guest") && !line.contains("/proc/self/exe")
}

fn spawn(
    program: &Path,
    host: &Host,
    directory: &Path,
    options: &[&str],
    env: &[(&str, &str)],
) -> Child {
    Command::new(program)
        .args(["--host", &host.address.to_string(), "--state"])
        .arg(directory.join("state"))
        .args(options)
        .env(MARK, directory)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
