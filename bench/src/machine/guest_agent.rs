//! The host's side of QEMU's guest agent: lines of JSON on a socket.
//!
//! Owns the three commands that are measured. A command's end is asked for again and again without
//! a pause, which is as fast as its protocol gets.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the agent.
pub(super) struct GuestAgent {
    stream: BufReader<UnixStream>,
}

impl GuestAgent {
    /// Connects and waits until it answers.
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut agent = Self { stream: BufReader::with_capacity(1 << 20, stream) };
        agent.call("guest-ping", &json!({}))?;
        Ok(agent)
    }

    fn call(&mut self, name: &str, arguments: &Value) -> anyhow::Result<Value> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = Vec::new();
        self.stream.read_until(b'\n', &mut answer)?;
        let mut answer: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{name}: {} bytes of no JSON", answer.len()))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{name}: {answer}"),
        }
    }

    /// Runs a command to its end.
    pub(super) fn exec(&mut self, path: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let order = json!({ "path": path, "arg": arguments, "capture-output": true });
        let started = self.call("guest-exec", &order)?;
        let pid = started.get("pid").context("a command without a pid")?.clone();
        loop {
            let status = self.call("guest-exec-status", &json!({ "pid": pid }))?;
            if status.get("exited") == Some(&Value::Bool(true)) {
                anyhow::ensure!(status.get("exitcode") == Some(&json!(0)), "{path}: {status}");
                return Ok(());
            }
        }
    }

    /// Reads `bytes` of a file in pieces of so many; how many came. Their text is not decoded.
    pub(super) fn read(&mut self, path: &str, piece: u64, bytes: u64) -> anyhow::Result<u64> {
        let handle = self.call("guest-file-open", &json!({ "path": path, "mode": "r" }))?;
        let mut came = 0;
        while came < bytes {
            let read =
                self.call("guest-file-read", &json!({ "handle": handle, "count": piece }))?;
            match read.get("count").and_then(Value::as_u64) {
                Some(count @ 1..) => came += count,
                _ => break,
            }
        }
        self.call("guest-file-close", &json!({ "handle": handle }))?;
        Ok(came)
    }
}
