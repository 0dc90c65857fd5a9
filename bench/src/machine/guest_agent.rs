//! The host's side of QEMU's guest agent: lines of JSON on a socket.
//!
//! Owns the measured commands. The end of a command is polled without a pause: the fastest
//! way that the protocol has.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::lab::{Lab, text};
use super::timeouts;

/// The size of a piece that is written. The agent takes lines of a few MiB at most.
const PIECE: usize = 1 << 20;

/// A connection to the agent.
pub(super) struct GuestAgent {
    stream: BufReader<UnixStream>,
}

impl GuestAgent {
    /// Starts the agent in the guest, and waits until it answers.
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Self> {
        let tools = metaservice_qemu::find().require()?;
        let modules = tools.kernel.modules.context("the kernel has no modules")?;
        // This fails if the module is built into the kernel.
        let console = format!(
            "{} insmod {} 2>/dev/null || true",
            tools.busybox.display(),
            modules.join("kernel/drivers/char/virtio_console.ko").display()
        );
        lab.exec(&["sh", "-c", &console])?;
        let program = lab.peers()?.guest_agent();
        let program = format!(
            "LD_LIBRARY_PATH={} exec {} -m virtio-serial -p /dev/vport*p1 -t /run",
            lab.peers()?.libraries(),
            text(&program)?
        );
        lab.detach(&["sh", "-c", &program])?;
        let stream = UnixStream::connect(lab.directory().join("ga.sock"))?;
        stream.set_read_timeout(Some(timeouts::SAMPLE))?;
        let mut agent = Self { stream: BufReader::with_capacity(1 << 20, stream) };
        agent.call("guest-ping", &json!({}))?;
        Ok(agent)
    }

    fn call(&mut self, name: &str, arguments: &Value) -> anyhow::Result<Value> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = Vec::new();
        let read = self.stream.read_until(b'\n', &mut answer);
        read.with_context(|| format!("{name} got no answer"))?;
        let mut answer: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{name}: {} bytes that are not JSON", answer.len()))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{name}: {answer}"),
        }
    }

    /// Runs a command to its end.
    pub(super) fn exec(&mut self, path: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let request = json!({ "path": path, "arg": arguments, "capture-output": true });
        let started = self.call("guest-exec", &request)?;
        let pid = started.get("pid").context("the answer has no process id")?.clone();
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < timeouts::SAMPLE, "{path} did not end");
            let status = self.call("guest-exec-status", &json!({ "pid": pid }))?;
            if status.get("exited") == Some(&Value::Bool(true)) {
                ensure!(status.get("exitcode") == Some(&json!(0)), "{path}: {status}");
                return Ok(());
            }
        }
    }

    /// Writes a file, in pieces.
    pub(super) fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let handle = self.call("guest-file-open", &json!({ "path": path, "mode": "w" }))?;
        for piece in content.chunks(PIECE) {
            let request = json!({ "handle": handle, "buf-b64": STANDARD.encode(piece) });
            let written = self.call("guest-file-write", &request)?;
            ensure!(written.get("count") == Some(&json!(piece.len())), "{path}: {written}");
        }
        self.call("guest-file-close", &json!({ "handle": handle }))?;
        Ok(())
    }

    /// Reads `bytes` of a file in pieces of this size. Returns how many came. The base64 text is
    /// not decoded.
    pub(super) fn read(&mut self, path: &str, piece: u64, bytes: u64) -> anyhow::Result<u64> {
        let handle = self.call("guest-file-open", &json!({ "path": path, "mode": "r" }))?;
        let (mut received, begun) = (0, Instant::now());
        while received < bytes {
            ensure!(begun.elapsed() < timeouts::SAMPLE, "only {received} bytes of {path} came");
            let read =
                self.call("guest-file-read", &json!({ "handle": handle, "count": piece }))?;
            match read.get("count").and_then(Value::as_u64) {
                Some(count @ 1..) => received += count,
                _ => break,
            }
        }
        self.call("guest-file-close", &json!({ "handle": handle }))?;
        Ok(received)
    }
}
