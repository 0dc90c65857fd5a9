//! What tests of the real tool in real machines share.
//!
//! A [`Sandbox`] runs the tool with folders of its own; every process under it has its temporary
//! files there, QEMU too, and is known by that. When it is dropped it looks for anything left.
#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses its part.

pub(crate) mod images;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use metaservice::control::Client;

/// How long a sign of life may take, software emulation and a busy host included.
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
    /// Whether images and saved machines are its own, too.
    owns_machines: bool,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tmp", "runtime", "work"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, owns_machines: false }
    }

    /// A folder for the test's own files; it is the tool's working folder.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The folder of temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The folder of sockets.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.folder.path().join("runtime")
    }

    /// One whose images and saved machines are its own, below the working folder; the tools in its
    /// cache are the user's.
    pub(crate) fn with_machines() -> Self {
        let mut sandbox = Self::new();
        sandbox.owns_machines = true;
        let cache = sandbox.work().join("cache/metaservice");
        std::fs::create_dir_all(&cache).unwrap();
        let home = |name| std::env::var_os(name).map(PathBuf::from);
        let users = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache"))).unwrap();
        for entry in std::fs::read_dir(users.join("metaservice")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "warm" {
                symlink(entry.path(), cache.join(entry.file_name())).unwrap();
            }
        }
        sandbox
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metaservice"));
        command
            .args(args)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.folder.path().join("runtime"));
        if self.owns_machines {
            command
                .env("XDG_CACHE_HOME", self.work().join("cache"))
                .env("XDG_DATA_HOME", self.work().join("data"))
                .env_remove("METASERVICE_NO_SNAPSHOT");
        } else {
            // Nothing is to go on behind a test that does not ask for it.
            command.env("METASERVICE_NO_SNAPSHOT", "1");
        }
        command
    }

    /// Runs the tool to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        finish(self.command(args).spawn().unwrap())
    }

    /// Starts the tool and waits until the guest runs its command.
    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Job {
        let args = ["run", "--json", "--name", name].into_iter().chain(args.iter().copied());
        let mut child = self.command(args).spawn().unwrap();
        let stderr = wait_for(&mut child, "\"event\":\"started\"");
        Job { child, stderr, client: self.client(name) }
    }

    /// The control socket of the job `name`.
    pub(crate) fn client(&self, name: &str) -> Client {
        let folder = self.folder.path().join("runtime/metaservice");
        Client::new(folder.join(format!("{name}.sock")))
    }

    /// Processes whose temporary files are ours.
    fn processes(&self) -> Vec<String> {
        let command = |pid: PathBuf| std::fs::read_to_string(pid.join("cmdline")).ok();
        self.pids().into_iter().filter_map(command).map(|words| words.replace('\0', " ")).collect()
    }

    fn pids(&self) -> Vec<PathBuf> {
        let ours = format!("TMPDIR={}/", self.folder.path().display());
        let is_ours = |pid: &Path| {
            let environment = std::fs::read(pid.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|text| text.starts_with(ours.as_bytes()))
        };
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| is_ours(path)).collect()
    }

    /// The process id of the machine that runs.
    pub(crate) fn machine(&self) -> String {
        let is_machine = |pid: &PathBuf| {
            let words = std::fs::read_to_string(pid.join("cmdline")).unwrap_or_default();
            words.split('\0').next().is_some_and(|program| program.contains("qemu-system"))
        };
        let pid = self.pids().into_iter().find(is_machine).unwrap();
        pid.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("tmp"), self.folder.path().join("runtime")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }

    /// Removes the control sockets of tools that were killed.
    pub(crate) fn forget_sockets(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path().join("runtime/metaservice"));
    }

    /// Waits until no process of ours is left, as when the tool was killed: then its
    /// machine dies a moment later.
    pub(crate) fn wait_for_no_process(&self) {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        for pid in self.pids() {
            let pid = pid.file_name().unwrap().to_str().unwrap().parse().unwrap();
            // Who is gone already needs no waiting for.
            if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
                let patience = PATIENCE.try_into().unwrap();
                poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap();
            }
        }
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left behind");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test that failed says so itself; nothing of it may disturb the others.
            for pid in self.pids() {
                let _ = Command::new("kill").arg("-KILL").arg(pid.file_name().unwrap()).status();
            }
        } else {
            assert_eq!(self.processes(), Vec::<String>::new(), "processes are left behind");
            assert_eq!(self.files(), Vec::<PathBuf>::new(), "files are left behind");
        }
    }
}

/// How a run of the tool ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Finished {
    /// stdout as text, when the run ended as it should.
    #[track_caller]
    pub(crate) fn text(&self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "stderr: {}", self.stderr);
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// A running job of the tool's.
pub(crate) struct Job {
    pub(crate) child: Child,
    /// What it said until it started, and will say.
    pub(crate) stderr: std::sync::mpsc::Receiver<String>,
    pub(crate) client: Client,
}

impl Job {
    /// Sends a signal to the tool.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits until the log has `text`.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the log ended: {seen:?}");
            seen.push(byte[0]);
        }
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let mut stdout = self.child.stdout.take().unwrap();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).map(|_| all)
        });
        let status = self.child.wait().unwrap().code();
        let stdout = reading.join().unwrap().unwrap();
        Finished { status, stdout, stderr: self.stderr.iter().collect() }
    }
}

/// Reads the child's stderr in the background; returns once `text` has come.
pub(crate) fn wait_for(child: &mut Child, text: &str) -> std::sync::mpsc::Receiver<String> {
    use std::io::BufRead;
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let _ = sender.send(line + "\n");
        }
    });
    let mut seen = String::new();
    while !seen.contains(text) {
        match receiver.recv_timeout(PATIENCE) {
            Ok(line) => seen += &line,
            Err(_) => {
                let _ = child.kill();
                panic!("never said {text:?}: {seen}");
            }
        }
    }
    receiver
}

#[track_caller]
pub(crate) fn finish(mut child: Child) -> Finished {
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).map(|_| all)
        })
    };
    let stdout = child.stdout.take().map(|pipe| read(Box::new(pipe)));
    let stderr = child.stderr.take().map(|pipe| read(Box::new(pipe)));
    let status = child.wait().unwrap().code();
    let all = |reading: Option<std::thread::JoinHandle<std::io::Result<Vec<u8>>>>| {
        reading.map(|reading| reading.join().unwrap().unwrap()).unwrap_or_default()
    };
    let stderr = String::from_utf8_lossy(&all(stderr)).into_owned();
    Finished { status, stdout: all(stdout), stderr }
}

/// The SHA-256 of a file of the host's, by the host's own tool.
pub(crate) fn sha256(path: &Path) -> String {
    let Output { stdout, .. } = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(stdout).unwrap().split(' ').next().unwrap().to_owned()
}
