//! QEMU on the host, and its version.
//!
//! To print its version, QEMU needs 20 ms to 50 ms, a tenth of a start from a snapshot. So the
//! version is recorded in the cache, with the attributes of the program's file. QEMU runs again if
//! the attributes differ. A script may run any program, so its version is not recorded, except for
//! the script that `doctor --install` puts into the cache: the program that it runs is known.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use metaservice_private::{Location, lock};
use serde_json::{Value, json};

use crate::arch::Arch;

/// The oldest QEMU that can connect a network card to an inherited socket.
pub(crate) const OLDEST_QEMU: QemuVersion = QemuVersion { major: 7, minor: 2 };

/// The record in the cache, and its largest size.
const RECORD: &str = "version";
const MAX_RECORD: u64 = 16 * 1024;

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl QemuVersion {
    /// Parses the output of `qemu-system-ARCH --version`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let version = text.split("version ").nth(1)?;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A QEMU that can run machines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version, 7.2 or newer.
    pub version: QemuVersion,
    /// The architecture of its guests.
    pub arch: Arch,
}

impl Qemu {
    /// A QEMU for guests with the architecture of this host.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, version: QemuVersion) -> Self {
        Self { path: path.into(), version, arch: Arch::HOST }
    }
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.version)
    }
}

/// Why the version of a program is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionError {
    /// The program does not run.
    #[error("does not run: {0}")]
    Run(#[from] io::Error),
    /// Its output has no version.
    #[error("does not print its version")]
    Output,
}

/// Where versions are recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records<'a> {
    /// The directory of the record. `None`: QEMU runs, even if this process knows its version.
    pub(super) location: Option<&'a Location>,
    /// The cache, if `doctor --install` may have installed QEMU there.
    pub(super) cache: Option<&'a Path>,
}

/// The versions that this process knows.
static KNOWN: Mutex<Vec<(Value, QemuVersion)>> = Mutex::new(Vec::new());

impl Records<'_> {
    /// The version of a program. Runs it if the version is neither known nor recorded.
    pub(super) fn version(self, program: &Path) -> Result<QemuVersion, VersionError> {
        let Some(location) = self.location else { return run(program) };
        let Some(files) = describe(program) else { return run(program) };
        let known = lock(&KNOWN).iter().find(|(known, _)| *known == files).map(|(_, found)| *found);
        if let Some(version) = known {
            return Ok(version);
        }
        let recorded = self.dependencies(program);
        let version = match recorded.as_ref().and_then(|files| read(location, files)) {
            Some(version) => version,
            None => {
                let version = run(program)?;
                if let Some(files) = &recorded {
                    write(location, files, version);
                }
                version
            }
        };
        lock(&KNOWN).push((files, version));
        Ok(version)
    }

    /// The attributes of all files on which the version depends. `None` if they are not known.
    fn dependencies(self, program: &Path) -> Option<Value> {
        let mut start = [0; 2];
        File::open(program).ok()?.read_exact(&mut start).ok()?;
        if start != *b"#!" {
            return Some(json!([describe(program)?]));
        }
        let cache = self.cache.filter(|cache| program.starts_with(cache.join("bin")))?;
        let installed = cache.join("qemu/usr/bin").join(program.file_name()?);
        Some(json!([describe(program)?, describe(&installed)?]))
    }
}

/// The attributes of a file by which a change is noticed.
fn describe(file: &Path) -> Option<Value> {
    let file = file.canonicalize().ok()?;
    let found = fs::metadata(&file).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some(json!([file.to_str()?, found.size(), found.dev(), found.ino(), times]))
}

fn read(location: &Location, files: &Value) -> Option<QemuVersion> {
    let mut text = Vec::new();
    let file = location.open().ok()?.read(RECORD).ok()??;
    file.take(MAX_RECORD).read_to_end(&mut text).ok()?;
    let record: Value = serde_json::from_slice(&text).ok()?;
    let number = |name: &str| u32::try_from(record.get(name)?.as_u64()?).ok();
    let version = QemuVersion { major: number("major")?, minor: number("minor")? };
    (record.get("files") == Some(files)).then_some(version)
}

/// A version that cannot be recorded is found again by the next process.
fn write(location: &Location, files: &Value, QemuVersion { major, minor }: QemuVersion) {
    let record = json!({ "files": files, "major": major, "minor": minor }).to_string();
    let written =
        location.open().and_then(|directory| directory.replace(RECORD, record.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "the version of QEMU is not recorded");
    }
}

/// Forgets what this process knows of a program, as if it were another process.
#[cfg(test)]
pub(super) fn forget(program: &Path) {
    let program = json!(program.canonicalize().unwrap().to_str());
    lock(&KNOWN).retain(|(files, _)| files[0] != program);
}

fn run(program: &Path) -> Result<QemuVersion, VersionError> {
    tracing::debug!(program = %program.display(), "running QEMU for its version");
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("it ended with {}", output.status)).into());
    }
    QemuVersion::parse(&String::from_utf8_lossy(&output.stdout)).ok_or(VersionError::Output)
}
