//! Reads statistics of a process from `/proc`.

use std::fs;

use anyhow::Context;

/// A number from `/proc/PID/status`: `VmRSS` (KiB), `VmHWM` (KiB), `Threads`.
pub(crate) fn status(process: u32, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.with_context(|| format!("process {process} has no {name}"))?.parse().map_err(Into::into)
}

/// The processor time of all threads of a process, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
