//! A service in this process, and the agent as a process beside it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::artifact::MEMORY;
use anyhow::Context;
use metaservice::{Builder, MetaService};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The time within which an agent must fetch its job.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// The extensions that a service announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Extensions,
    /// None: the agent sees a host of version 1.
    Version1,
}

/// A service, its agent, and the runtime on which the service runs.
pub(super) struct Pair {
    pub(super) service: MetaService,
    pub(super) runtime: Runtime,
    agent: Child,
    _state: tempfile::TempDir,
}

impl Drop for Pair {
    fn drop(&mut self) {
        // TERM first: the agent then ends the processes that it started.
        let _ = kill_process(Pid::from_child(&self.agent), Signal::TERM);
        let _ = self.agent.wait();
    }
}

impl Pair {
    /// A job that does nothing during the measure.
    pub(super) fn idle(agent: &Path) -> anyhow::Result<Self> {
        Self::start(agent, MetaService::builder(["sleep", "100000"]), Speaks::Extensions)
    }

    pub(super) fn start(agent: &Path, builder: Builder, speaks: Speaks) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let (service, address) = runtime.block_on(serve(builder, speaks))?;
        // In memory, as /run in a guest.
        let state = tempfile::tempdir_in(MEMORY)?;
        let agent = Command::new(agent)
            .args(["--host", &address.to_string(), "--state"])
            .arg(state.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", agent.display()))?;
        let pair = Self { service, runtime, agent, _state: state };
        pair.runtime
            .block_on(async { tokio::time::timeout(FETCH_TIMEOUT, pair.service.fetched()).await })
            .context("the agent did not fetch the job")?;
        Ok(pair)
    }

    /// Does work in a task of the runtime that serves, as a program that hosts jobs does. A thread
    /// that waits for it is woken only at its end.
    pub(super) fn task<T, F>(&self, work: impl FnOnce(MetaService) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.runtime.block_on(self.runtime.spawn(work(self.service.clone())))?
    }

    /// The process id of the agent.
    pub(super) fn agent(&self) -> u32 {
        self.agent.id()
    }
}

async fn serve(builder: Builder, speaks: Speaks) -> anyhow::Result<(MetaService, SocketAddr)> {
    let extensions = matches!(speaks, Speaks::Extensions);
    let service = builder.extensions(extensions).start()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(service.clone().serve(listener));
    Ok((service, address))
}
