//! Timeouts: every sample has one, and the error names what did not end.
//!
//! Owns the timeouts, and runs programs with one: a program that is too slow is killed.

use std::fmt::Display;
use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// The timeout for the start of a machine and its agent. An emulated machine needs some seconds.
pub(super) const START: Duration = Duration::from_secs(90);

/// The timeout for one step of a sample. The slowest step, to compile a directory in an
/// emulated machine, takes about a minute.
pub(super) const SAMPLE: Duration = Duration::from_secs(300);

/// Waits for work, at most for the given time.
pub(super) async fn within<T>(
    time: Duration,
    what: impl Display,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let done = timeout(time, work).await;
    done.with_context(|| format!("{what} did not end within {} s", time.as_secs()))?
}

/// Runs a program and returns its standard error, which is also the error when the program fails.
pub(super) fn run(command: std::process::Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let work = async {
        let output = command.output().await.with_context(|| format!("cannot run {name}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{name} failed: {}", stderr.trim());
        Ok(stderr)
    };
    Builder::new_current_thread().enable_all().build()?.block_on(within(SAMPLE, &name, work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_names_what_did_not_end() {
        let never = std::future::pending::<anyhow::Result<()>>();
        let error = within(Duration::ZERO, "the peer", never).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer did not end within 0 s");
    }

    #[test]
    fn the_error_of_a_program_is_its_stderr() {
        let shell = |script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]);
            run(command)
        };
        let error = shell("echo because >&2; exit 3").unwrap_err();
        assert_eq!(error.to_string(), "sh failed: because");
        assert_eq!(shell("echo out; echo err >&2").unwrap(), "err\n");
    }
}
