//! Ends what would not end: every sample has a bound in time, and an error that names what hung.
//!
//! Owns the bounds, and programs that are run within one: what is too slow is killed.

use std::fmt::Display;
use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// How long a machine and what runs in it may take to start. An emulated one needs some seconds.
pub(super) const START: Duration = Duration::from_secs(90);

/// How long a step of a sample may take; the slowest is known to take some 15 s.
pub(super) const SAMPLE: Duration = Duration::from_secs(60);

/// Waits for work, but no longer.
pub(super) async fn within<T>(
    bound: Duration,
    what: impl Display,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let done = timeout(bound, work).await;
    done.with_context(|| format!("{what} has not ended after {} s", bound.as_secs()))?
}

/// Runs a program; what it said beside its output, which is why when it fails.
pub(super) fn run(command: std::process::Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let work = async {
        let output = command.output().await.with_context(|| format!("cannot run {name}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{name} failed: {}", complaint.trim());
        Ok(complaint)
    };
    Builder::new_current_thread().enable_all().build()?.block_on(within(SAMPLE, &name, work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_named() {
        let never = std::future::pending::<anyhow::Result<()>>();
        let error = within(Duration::ZERO, "the peer", never).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer has not ended after 0 s");
    }

    #[test]
    fn a_program_that_fails_says_why() {
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
