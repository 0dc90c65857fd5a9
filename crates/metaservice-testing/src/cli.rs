//! The real command line tool, in directories of its own, with a check that it cleans up.
//!
//! The tool and each process that it starts, also QEMU, have these directories in their environment
//! (`TMPDIR`). By this variable, the harness finds them. When a [`Cli`] is dropped, it fails the
//! test if a process, a temporary file or a control socket is left.
//!
//! ```no_run
//! use metaservice_testing::cli::Cli;
//!
//! # const METASERVICE: &str = "";
//! let cli = Cli::new(METASERVICE);
//! let finished = cli.run(&["run", "--", "echo", "hello"]);
//! assert_eq!(finished.text(0), "hello\n");
//! ```

mod finished;
pub mod images;
mod service;
mod web;

use self::finished::read_all;
pub use self::finished::{Finished, finish};
pub use service::Service;
pub use web::Web;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use metaservice::control::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::processes::{Mark, command_line};
use crate::wait::TIMEOUT;

/// The tool, with directories of its own.
#[derive(Debug)]
pub struct Cli {
    program: PathBuf,
    directory: tempfile::TempDir,
    owns_cache: bool,
}

impl Cli {
    /// Uses `program`, the tool. It takes no snapshots.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["tmp", "state", "work"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { program: program.into(), directory, owns_cache: false }
    }

    /// As [`new`](Self::new), with its own images and snapshots, below the working directory. The
    /// kernel and the other parts of the cache are the user's.
    pub fn with_cache(program: &str) -> Self {
        let mut cli = Self::new(program);
        cli.owns_cache = true;
        let cache = cli.work().join("cache/metaservice");
        std::fs::create_dir_all(&cache).unwrap();
        let home = |name| std::env::var_os(name).map(PathBuf::from);
        let users = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache"))).unwrap();
        for entry in std::fs::read_dir(users.join("metaservice")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "warm" {
                symlink(entry.path(), cache.join(entry.file_name())).unwrap();
            }
        }
        cli
    }

    /// The working directory of the tool, for files of the test.
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// The directory of temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    /// The directory of the jobs.
    pub fn jobs(&self) -> PathBuf {
        self.directory.path().join("state/metaservice/jobs")
    }

    /// Returns the tool with `args`. Its stdout and stderr are pipes.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("TMPDIR", self.temporary())
            .env("METASERVICE_CONFIG", "")
            .env("XDG_STATE_HOME", self.directory.path().join("state"));
        if self.owns_cache {
            command
                .env("XDG_CACHE_HOME", self.work().join("cache"))
                .env("XDG_DATA_HOME", self.work().join("data"))
                .env_remove("METASERVICE_NO_SNAPSHOT");
        } else {
            command.env("METASERVICE_NO_SNAPSHOT", "1");
        }
        command
    }

    /// Runs the tool to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        finish(self.command(args).spawn().unwrap())
    }

    /// Ends a job whose command waits for the file `/tmp/done`. The machine can be gone before the
    /// status of `touch` comes, so it is ignored.
    pub fn release(&self, name: &str) {
        self.run(&["exec", name, "touch", "/tmp/done"]);
    }

    /// Starts `run` with `args`, and waits until the guest runs its command.
    pub fn start(&self, name: &str, args: &[&str]) -> Job {
        let args = ["run", "--json", "--name", name].into_iter().chain(args.iter().copied());
        let mut child = self.command(args).spawn().unwrap();
        let stderr = wait_for(&mut child, "\"event\":\"started\"");
        Job { child, stderr, client: self.client(name) }
    }

    /// Starts `serve` for a guest that the test is, at a port of the loopback interface.
    pub fn serve(&self, args: &[&str]) -> Service {
        self.serve_at("127.0.0.1:0", args)
    }

    /// As [`serve`](Self::serve), at `listen`.
    pub fn serve_at(&self, listen: &str, args: &[&str]) -> Service {
        let first = ["serve", "--json", "--listen", listen];
        let mut child = self.command(first).args(args).spawn().unwrap();
        let (line, stderr) = wait_for_line(&mut child, "\"event\":\"serving\"");
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = event["address"].as_str().unwrap().to_owned();
        // The log of the job goes there: a pipe that is full would stop it.
        let stdout = read_all(child.stdout.take().unwrap());
        Service { child, address, stderr, stdout }
    }

    /// As [`serve`](Self::serve), with messages in words instead of events.
    pub fn serve_in_words(&self, args: &[&str]) -> Service {
        let mut child =
            self.command(["serve", "--listen", "127.0.0.1:0"]).args(args).spawn().unwrap();
        let (line, stderr) = wait_for_line(&mut child, "serving on ");
        let address = line.trim_end().rsplit(' ').next().unwrap().to_owned();
        let stdout = read_all(child.stdout.take().unwrap());
        Service { child, address, stderr, stdout }
    }

    /// Starts `metaservice web` with more arguments, and lets a browser in.
    pub fn web(&self, args: &[&str]) -> Web {
        let first = ["web", "--listen", "127.0.0.1:0"];
        Web::start(self.command(first.iter().chain(args)), &self.work())
    }

    /// Returns a client of the control socket of the job `name`.
    pub fn client(&self, name: &str) -> Client {
        Client::new(self.jobs().join(name).join("control.sock"))
    }

    /// Returns the process id of the virtual machine that runs.
    pub fn machine(&self) -> String {
        let is_machine = |pid: &Pid| {
            let line = command_line(*pid).unwrap_or_default();
            line.split(' ').next().is_some_and(|program| program.contains("qemu-system"))
        };
        let pid = self.mark().pids().into_iter().find(is_machine).unwrap();
        pid.as_raw_nonzero().to_string()
    }

    /// Removes the control sockets of a tool that was killed.
    pub fn remove_sockets(&self) {
        let _ = std::fs::remove_dir_all(self.jobs());
    }

    /// Waits until each process has ended. When the tool was killed, its machine ends soon after.
    pub fn wait_for_exits(&self) {
        self.mark().wait_for_exits();
        self.mark().assert_none();
    }

    fn mark(&self) -> Mark {
        Mark::new(format!("TMPDIR={}/", self.directory.path().display()))
    }

    /// The temporary files and the control sockets.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.temporary(), self.directory.path().join("state")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { directories.push(path) } else { found.push(path) }
            }
        }
        let state = self.directory.path().join("state");
        found.retain(|path| !path.starts_with(&state) || path.ends_with("control.sock"));
        found
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed. Its processes must not disturb other tests.
            self.mark().kill();
        } else {
            self.mark().assert_none();
            assert_eq!(self.files(), Vec::<PathBuf>::new(), "files are left behind");
        }
    }
}

/// A job that runs.
#[derive(Debug)]
pub struct Job {
    /// The tool.
    pub child: Child,
    /// The lines of stderr after the start.
    pub stderr: Receiver<String>,
    /// A client of the control socket.
    pub client: Client,
}

impl Job {
    /// Sends a signal to the tool.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the log ended: {seen:?}");
            seen.push(byte[0]);
        }
    }

    /// Waits until the tool ends.
    #[track_caller]
    pub fn finish(self) -> Finished {
        let mut finished = finish(self.child);
        finished.stderr = self.stderr.iter().collect();
        finished
    }
}

/// Waits until the tool has written a line with `text` to stderr. Returns the lines after it.
#[track_caller]
pub fn wait_for(child: &mut Child, text: &str) -> Receiver<String> {
    wait_for_line(child, text).1
}

/// As [`wait_for`]; returns also the line.
#[track_caller]
pub fn wait_for_line(child: &mut Child, text: &str) -> (String, Receiver<String>) {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    // It reads to the end, so that the tool never waits for a reader.
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let _ = sender.send(line + "\n");
        }
    });
    let mut seen = String::new();
    loop {
        match receiver.recv_timeout(TIMEOUT) {
            Ok(line) if line.contains(text) => return (line, receiver),
            Ok(line) => seen += &line,
            Err(_) => {
                let _ = child.kill();
                panic!("no {text:?} in stderr: {seen}");
            }
        }
    }
}

/// Returns the SHA-256 of a file, from the `sha256sum` of the host.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
