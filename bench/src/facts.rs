//! The machine on which a measure was taken: processor, memory, kernel, versions, date and commit.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Text for people. No decision depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    /// Whether virtual machines are accelerated or emulated.
    pub(crate) acceleration: String,
    pub(crate) rustc: String,
    /// The measured programs, each with its version.
    pub(crate) programs: Vec<String>,
}

impl Facts {
    /// Collects the facts of this machine.
    pub(crate) fn gather() -> Self {
        let name = rustix::system::uname();
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: commit(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field("/proc/meminfo", "MemTotal").unwrap_or_default(),
            kernel: format!(
                "{} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy()
            ),
            acceleration: acceleration().to_owned(),
            rustc: first_line("rustc", &["--version"]).unwrap_or_default(),
            programs: [
                first_line("qemu-system-x86_64", &["--version"]),
                first_line("ssh", &["-V"]),
                first_line("find", &["--version"]),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }
}

/// The commit, and whether the work tree differs from it.
fn commit() -> String {
    let head = first_line("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    match first_line("git", &["status", "--porcelain", "--untracked-files=no"]) {
        Some(changed) if !changed.is_empty() => format!("{head} and changes"),
        _ => head,
    }
}

fn acceleration() -> &'static str {
    let flags = field("/proc/cpuinfo", "flags").unwrap_or_default();
    let able = flags.split(' ').any(|flag| flag == "vmx" || flag == "svm");
    if able && fs::metadata("/dev/kvm").is_ok() { "KVM" } else { "none: TCG" }
}

/// The value after a name and a colon in a text file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line that a program prints, on standard output or else on standard error.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}
