//! What the directory of a job says about it, as JSON.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use metaservice::StoredLog;
use metaservice::control::Job;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::JobName;

/// What was known when the job started.
pub(super) const SPEC: &str = "spec.json";

/// The end of its log, and the index of this: see [`StoredLog`].
pub(super) const LOG: &str = "log";
pub(super) const INDEX: &str = "log.index";

/// The file with the attempts of a job's guest, unless the description names another one.
pub const NETWORK_LOG: &str = "network.jsonl";

/// What became of it.
pub(super) const RESULT: &str = "result.json";

/// What is known of a job when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Began {
    pub(crate) started_ms: u64,
    pub(crate) pid: u32,
    /// The command that clients are shown.
    pub(crate) command: Vec<String>,
    /// The names of its variables.
    pub(crate) env: Vec<String>,
    /// The description, without the values of variables.
    pub(crate) spec: Value,
}

/// A job whose process has ended, from its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PastJob {
    /// The job, as clients saw it last. `status` is the exit status of `run`. The state of a job
    /// whose process was killed is [`Lost`](metaservice::control::JobState::Lost).
    #[serde(flatten)]
    pub job: Job,
    /// How it ended: `result`, `killed`, `machine-gone`, `not-started`, `never-fetched`,
    /// `agent-dead`, `no-guest`, `forced`, `cancelled`, `unread` or `abandoned`. Absent for a lost
    /// job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// When it ended, in milliseconds since 1970. Absent for a lost job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Why its machine did not start, or its log is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its artifacts, in the order in which they were fetched.
    #[serde(default)]
    pub artifacts: Vec<PastArtifact>,
    /// The last lines of the machine's console, if there was no result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
    /// Its description, without the values of variables.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub spec: Value,
    /// Its directory.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub directory: PathBuf,
}

/// An artifact of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PastArtifact {
    /// Its path in the guest.
    pub path: String,
    /// Its destination.
    pub to: PathBuf,
    /// Its length in bytes, if it was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it was not fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The log of the job with this directory, as far as it is kept. Blocks.
///
/// # Errors
/// The files cannot be read.
pub fn stored_log(directory: &Path) -> io::Result<StoredLog> {
    let open = |name| File::open(directory.join(name));
    StoredLog::open(open(LOG)?, open(INDEX)?)
}

impl PastJob {
    /// Reads the directory of a job whose process has ended. What cannot be read is left out.
    pub(super) fn read(name: &JobName, directory: PathBuf) -> Self {
        let began: Option<Began> = read(&directory.join(SPEC)).ok();
        let result: Option<Self> = read(&directory.join(RESULT)).ok();
        let spec = began.as_ref().map(|began| began.spec.clone()).unwrap_or_default();
        let past = result.unwrap_or_else(|| Self::of(lost(name, began)));
        Self { spec, directory, ..past }
    }

    /// Its log, as far as it is kept. Blocks.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn log(&self) -> io::Result<StoredLog> {
        stored_log(&self.directory)
    }

    /// What its guest has tried, as lines of JSON: the file that its description names, or that of
    /// its directory. Blocks.
    ///
    /// # Errors
    /// The file cannot be read. [`NotFound`](io::ErrorKind::NotFound): it had no network, or the
    /// file was removed.
    pub fn network_log(&self) -> io::Result<File> {
        let named = self.spec.pointer("/machine/network/log").and_then(Value::as_str);
        File::open(named.map_or_else(|| self.directory.join(NETWORK_LOG), PathBuf::from))
    }

    /// A job of which nothing more is known.
    pub(super) fn of(job: Job) -> Self {
        Self {
            job,
            end: None,
            ended_ms: None,
            error: None,
            artifacts: Vec::new(),
            console: Vec::new(),
            spec: Value::Null,
            directory: PathBuf::new(),
        }
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// A job without a result.
fn lost(name: &JobName, began: Option<Began>) -> Job {
    let mut job = Job::lost(name.as_str());
    if let Some(began) = began {
        began.describe(&mut job);
    }
    job
}

impl Began {
    pub(super) fn describe(self, job: &mut Job) {
        job.command = self.command;
        job.env = self.env;
        job.started_ms = self.started_ms;
        job.pid = self.pid;
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}
