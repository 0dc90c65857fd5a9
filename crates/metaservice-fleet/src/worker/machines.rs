//! What a worker runs its jobs in: sandboxes, or what a library user gave.

use std::sync::Arc;

use metaservice_sandbox::life::End;
use metaservice_sandbox::{Builder, Report, control};

use super::chain::chain;
use super::pool::Pool;
use super::runner::{Run, RunError, Runner, Running};
use crate::tunnel::Door;

/// What a worker runs its jobs in.
#[derive(Clone)]
pub(super) enum Machines {
    /// Machines of this host. Some wait in the pool. Each may leave so many bytes of artifacts.
    Sandboxes(Pool, u64),
    /// What a library user gave.
    Other(Arc<dyn Runner>),
}

impl Machines {
    /// Starts the command. `starting` is called before, with whether the machine was waiting.
    ///
    /// Cancellation: the machine ends.
    pub(super) async fn start(
        &self,
        run: Run,
        door: &Door,
        starting: impl FnOnce(bool),
    ) -> Result<Running, RunError> {
        match self {
            Self::Sandboxes(pool, max) => sandbox(pool, *max, run, door, starting).await,
            Self::Other(runner) => {
                starting(false);
                Ok(runner.run(run))
            }
        }
    }
}

async fn sandbox(
    pool: &Pool,
    max_artifacts: u64,
    run: Run,
    door: &Door,
    starting: impl FnOnce(bool),
) -> Result<Running, RunError> {
    let mut builder = Builder::from_spec(run.spec).log(run.stdout).log_stderr(run.stderr);
    builder = builder.max_artifacts(max_artifacts);
    if let Some(directory) = run.cgroup {
        builder = builder.cgroup(directory);
    }
    for (name, value) in run.secrets {
        builder = builder.secret(name, value);
    }
    let prepared = builder.prepare().await.map_err(|error| RunError::Refused(chain(&error)))?;
    let warm = prepared.kind().and_then(|kind| pool.take(&kind));
    starting(warm.is_some());
    let prepared = match warm {
        Some(machine) => prepared.warm(machine),
        None => prepared,
    };
    let mut sandbox = prepared.launch().await.map_err(|error| RunError::Machine(chain(&error)))?;
    if let Ok(client) = control::find(sandbox.name()).await {
        door.lead_to(client.socket().to_owned());
    }
    Ok(Box::pin(async move {
        let report = sandbox.wait().await;
        // The log ends with the handle.
        drop(sandbox);
        status(&report, max_artifacts)
    }))
}

fn status(report: &Report, max_artifacts: u64) -> Result<u8, RunError> {
    if report.exceeds_artifacts {
        return Err(RunError::TooLarge(max_artifacts));
    }
    match report.outcome.end {
        End::Result | End::Killed(_) | End::Unread => Ok(report.status()),
        end => {
            let cause = report.not_started.as_ref().map(|error| chain(error));
            let cause = cause.or_else(|| report.exit.as_ref().map(|e| e.cause.to_string()));
            Err(RunError::Machine(cause.unwrap_or_else(|| format!("{end:?}"))))
        }
    }
}
