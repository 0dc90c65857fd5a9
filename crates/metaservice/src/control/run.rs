//! A command that is run in one request: what the request and its answer carry.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use metaservice_protocol::{Exec, ExecOptions, Reason};
use serde::{Deserialize, Serialize};

use crate::handle::child::command::ExitStatus;

/// A command that is run in one request, and what it reads from stdin.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RunRequest {
    /// The command and its arguments; empty means the guest's default shell.
    pub command: Vec<String>,
    /// Variables on top of the job's environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; by default the job's.
    pub workdir: Option<String>,
    /// The user: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; by default the job's.
    pub user: Option<String>,
    /// What the command reads from stdin, as text. Without this and `stdinBase64`, it is empty.
    pub stdin: Option<String>,
    /// The same, in base64.
    pub stdin_base64: Option<String>,
    /// Kill the command after this number of milliseconds.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400_000))]
    pub timeout_ms: Option<u64>,
}

/// The longest time that a command can have in one request, in milliseconds: a day.
const MAX_TIMEOUT_MS: u64 = 86_400_000;

/// Why a [`RunRequest`] is invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRun {
    #[error("only one of stdin and stdinBase64")]
    TwoInputs,
    #[error("stdinBase64 is not base64")]
    Base64(#[from] base64::DecodeError),
    #[error("timeoutMs is a number from 1 to {MAX_TIMEOUT_MS}")]
    Timeout,
}

impl RunRequest {
    /// Runs this program with these arguments.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The command reads these bytes from stdin.
    #[must_use]
    pub fn with_stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        (self.stdin, self.stdin_base64) = match str::from_utf8(bytes.as_ref()) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(bytes))),
        };
        self
    }

    /// The command, its stdin, and its time.
    pub(super) fn parts(self) -> Result<(Exec, Vec<u8>), InvalidRun> {
        let Self { command, env, workdir, user, stdin, stdin_base64, timeout_ms } = self;
        if timeout_ms.is_some_and(|time| !(1..=MAX_TIMEOUT_MS).contains(&time)) {
            return Err(InvalidRun::Timeout);
        }
        let stdin = match (stdin, stdin_base64) {
            (Some(_), Some(_)) => return Err(InvalidRun::TwoInputs),
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64)?,
            (None, None) => Vec::new(),
        };
        let options = ExecOptions { env, workdir, user, ..ExecOptions::default() };
        Ok((Exec { command, tty: false, options }, stdin))
    }
}

/// What a command wrote, and how it ended.
///
/// Of each output, there is either the text or its base64.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// What the command wrote to stdout, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The same in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Whether the command wrote more to stdout than the limit of 4 MiB. The rest is discarded.
    #[serde(default)]
    pub stdout_truncated: bool,
    /// What the command wrote to stderr, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// The same in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Whether the command wrote more to stderr than the limit of 4 MiB. The rest is discarded.
    #[serde(default)]
    pub stderr_truncated: bool,
    /// The exit status, as a shell has it: 128+N after signal N, 124 after `timeoutMs`, 126 and 127
    /// if the command cannot be run or is not found.
    pub status: u8,
    /// The exit code, if the command exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The number of the signal that ended the command, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Why it ended. Absent from an agent of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl RunResult {
    /// The bytes of stdout.
    #[must_use]
    pub fn stdout_bytes(&self) -> Vec<u8> {
        bytes(self.stdout.as_ref(), self.stdout_base64.as_ref())
    }

    /// The bytes of stderr.
    #[must_use]
    pub fn stderr_bytes(&self) -> Vec<u8> {
        bytes(self.stderr.as_ref(), self.stderr_base64.as_ref())
    }

    pub(super) fn new(stdout: Kept, stderr: Kept, end: RunEnd) -> Self {
        let RunEnd { status, exit_code, signal, reason } = end;
        let (stdout_truncated, stderr_truncated) = (stdout.truncated, stderr.truncated);
        let (stdout, stdout_base64) = stdout.encode();
        let (stderr, stderr_base64) = stderr.encode();
        Self {
            stdout,
            stdout_base64,
            stdout_truncated,
            stderr,
            stderr_base64,
            stderr_truncated,
            status,
            exit_code,
            signal,
            reason,
        }
    }
}

fn bytes(text: Option<&String>, base64: Option<&String>) -> Vec<u8> {
    let decoded = base64.and_then(|base64| STANDARD.decode(base64).ok());
    decoded.or_else(|| text.map(|text| text.clone().into_bytes())).unwrap_or_default()
}

/// The first bytes of an output.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
}

impl Kept {
    /// Text or base64. A character that was cut at the limit is left out of a text.
    fn encode(mut self) -> (Option<String>, Option<String>) {
        if self.truncated {
            self.bytes.truncate(whole(&self.bytes));
        }
        encode(self.bytes)
    }
}

fn encode(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}

/// The length without an incomplete character at the end.
fn whole(bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// How a command ended: the last line of a streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunEnd {
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

impl RunEnd {
    /// It was killed because its time was over.
    pub(super) const TIMED_OUT: Self =
        Self { status: 124, exit_code: None, signal: None, reason: Some(Reason::TimedOut) };
}

impl From<ExitStatus> for RunEnd {
    fn from(status: ExitStatus) -> Self {
        let ending = status.ending();
        Self {
            status: match ending {
                _ if status.success() => 0,
                Some(ending) => ending.shell_status().max(1),
                None => 1,
            },
            exit_code: status.code(),
            signal: status.signal(),
            reason: ending.map(|ending| ending.reason),
        }
    }
}

/// One output of a streamed answer, in lines. Characters that arrive in two parts stay whole.
#[derive(Debug)]
pub(super) struct OutputLines {
    text: &'static str,
    base64: &'static str,
    rest: Vec<u8>,
}

impl OutputLines {
    pub(super) const STDOUT: Self = Self::new("stdout", "stdoutBase64");
    pub(super) const STDERR: Self = Self::new("stderr", "stderrBase64");

    const fn new(text: &'static str, base64: &'static str) -> Self {
        Self { text, base64, rest: Vec::new() }
    }

    /// The line for these bytes; `None` while there is nothing to send. `ends`: no byte follows.
    pub(super) fn line(&mut self, bytes: &[u8], ends: bool) -> Option<Vec<u8>> {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        if !ends {
            self.rest = all.split_off(whole(&all));
        }
        if all.is_empty() {
            return None;
        }
        let (name, value) = match encode(all) {
            (Some(text), _) => (self.text, text),
            (None, base64) => (self.base64, base64.unwrap_or_default()),
        };
        Some(line(&serde_json::json!({ name: value })))
    }
}

pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result(stdout: &[u8], truncated: bool) -> RunResult {
        let stdout = Kept { bytes: stdout.to_vec(), truncated };
        RunResult::new(stdout, Kept::default(), RunEnd::TIMED_OUT)
    }

    #[test]
    fn an_output_is_text_or_base64() {
        let text = result("ä\0".as_bytes(), false);
        assert_eq!((text.stdout.as_deref(), text.stdout_base64), (Some("ä\0"), None));
        let binary = result(b"\xff\0", false);
        assert_eq!((binary.stdout, binary.stdout_base64.as_deref()), (None, Some("/wA=")));
        let cut = result("aä".as_bytes().split_last().unwrap().1, true);
        assert_eq!((cut.stdout.as_deref(), cut.stdout_truncated), (Some("a"), true));
        let json = serde_json::to_value(&cut).unwrap();
        assert_eq!((&json["status"], &json["reason"]), (&124.into(), &"timed-out".into()));
    }

    #[test]
    fn a_request_has_one_input_and_a_time() {
        let request = |json: &str| serde_json::from_str::<RunRequest>(json).unwrap().parts();
        let (exec, stdin) = request(r#"{"command":["cat"],"stdinBase64":"/wA="}"#).unwrap();
        assert_eq!((exec.command, stdin), (vec!["cat".to_owned()], vec![0xff, 0]));
        let both = request(r#"{"stdin":"","stdinBase64":""}"#);
        assert!(matches!(both, Err(InvalidRun::TwoInputs)));
        assert!(matches!(request(r#"{"stdinBase64":"%"}"#), Err(InvalidRun::Base64(_))));
        for time in [0, MAX_TIMEOUT_MS + 1] {
            let late = request(&format!(r#"{{"timeoutMs":{time}}}"#));
            assert!(matches!(late, Err(InvalidRun::Timeout)));
        }
    }

    proptest! {
        /// All bytes arrive, however they are cut, and a text stays text.
        #[test]
        fn lines_have_all_bytes(
            text: String,
            garbage in proptest::collection::vec(any::<u8>(), 0..20),
            binary: bool,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let all = if binary { [text.as_bytes(), &garbage].concat() } else { text.into_bytes() };
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(all.len() + 1)).collect();
            cuts.sort_unstable();
            let mut output = OutputLines::STDOUT;
            let (mut received, mut from) = (Vec::new(), 0);
            for to in cuts.into_iter().chain([all.len()]) {
                let line = output.line(&all[from..to], false);
                received.extend(line);
                from = to;
            }
            received.extend(output.line(b"", true));
            let mut bytes = Vec::new();
            for line in received {
                prop_assert_eq!(line.last(), Some(&b'\n'));
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                match (&line["stdout"], &line["stdoutBase64"]) {
                    (serde_json::Value::String(text), _) => bytes.extend(text.bytes()),
                    (_, serde_json::Value::String(base64)) => {
                        prop_assert!(binary);
                        bytes.extend(STANDARD.decode(base64).unwrap());
                    }
                    _ => prop_assert!(false, "{line}"),
                }
            }
            prop_assert_eq!(bytes, all);
        }

        /// A text of a result and of a request is read as it was written.
        #[test]
        fn bytes_are_read_as_they_were_written(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(result(&bytes, false).stdout_bytes(), bytes.clone());
            let (_, stdin) = RunRequest::new(["cat"]).with_stdin(&bytes).parts().unwrap();
            prop_assert_eq!(stdin, bytes);
        }
    }
}
