//! The real agent under a test's host.
//!
//! It runs with a mark in its environment, which every process of the job and its shells
//! inherits: what is left of them in the end is found by it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::time::timeout;

use super::{Host, PATIENCE};

/// The real agent.
pub(crate) struct Agent {
    child: tokio::process::Child,
    mark: String,
    state: PathBuf,
    host: Host,
    _folder: Arc<tempfile::TempDir>,
}

impl Agent {
    pub(crate) async fn start(host: &Host) -> Self {
        Self::start_with(host, &[], &[]).await
    }

    /// With more options and environment.
    pub(crate) async fn start_with(host: &Host, options: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let state = folder.path().join("state");
        let mark = format!("metaservice-test-{}", folder.path().display());
        let child = Self::spawn(host, &state, &mark, options, env);
        Self { child, mark, state, host: host.clone(), _folder: folder }
    }

    fn spawn(
        host: &Host,
        state: &Path,
        mark: &str,
        options: &[&str],
        env: &[(&str, &str)],
    ) -> tokio::process::Child {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_metaservice-guest"))
            .args(["--host", &host.address.to_string(), "--state"])
            .arg(state)
            .args(options)
            .env("METASERVICE_TEST", mark)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Kills the agent alone, as a crash does.
    pub(crate) async fn crash(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on the same state.
    pub(crate) fn restart(&mut self, options: &[&str]) {
        self.child = Self::spawn(&self.host, &self.state, &self.mark, options, &[]);
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    pub(crate) async fn exit_status(&mut self) -> std::process::ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("the agent's end").unwrap()
    }

    /// Stops it as a service manager does, and looks that nothing is left.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        assert!(self.exit_status().await.success());
        self.assert_nothing_left();
        self.host.assert_strict();
    }

    pub(crate) fn assert_nothing_left(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "left running: {left:?}");
        let shells = std::fs::read_dir(&self.state).into_iter().flatten().flatten();
        let shells: Vec<_> = shells
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name.starts_with("shell-"))
            .collect();
        assert!(shells.is_empty(), "left behind: {shells:?}");
    }

    /// Only the agent itself, or its supervisor on its way out, is left.
    pub(crate) fn assert_no_job_left(&self) {
        let mut left = self.processes();
        left.retain(|line| !line.contains("metaservice-guest") && !line.contains("/proc/self/exe"));
        assert!(left.is_empty(), "left running: {left:?}");
    }

    /// The command lines of all processes of this agent, itself included.
    pub(crate) fn processes(&self) -> Vec<String> {
        let line = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
        };
        self.pids().iter().map(line).collect()
    }

    fn pids(&self) -> Vec<i32> {
        let mark = format!("METASERVICE_TEST={}\0", self.mark);
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|e| e.file_name().to_str().unwrap_or("").parse().ok());
        pids.filter(|pid: &i32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.windows(mark.len()).any(|window| window == mark.as_bytes())
        })
        .collect()
    }
}

/// A test that fails leaves nothing running either: a job outlives its agent by design.
impl Drop for Agent {
    fn drop(&mut self) {
        for pid in self.pids().into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Whether a process exists and has not ended.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}
