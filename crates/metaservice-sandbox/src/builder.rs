//! The builder of a sandbox: its setters, and the start of the job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::job::{InvalidJob, Job};
use crate::launch::{LaunchError, Launcher};
use crate::life::{End, KillReason};
use crate::machine::{Plan, PlanError, WarmError, WarmKind, WarmMachine};
use crate::report::Report;
use crate::sandbox::Sandbox;
use crate::spec::{ArtifactSpec, CopyInSpec, JobSpec, NetworkSpec, Period, Size, VolumeSpec};

/// Why a sandbox does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The description is wrong.
    #[error(transparent)]
    Job(#[from] InvalidJob),
    /// The machine cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something that the job needs cannot be opened.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The job ended before its guest fetched the command.
    #[error("the job ended before its command ran: {}", describe(.0))]
    Ended(Box<Report>),
}

fn describe(report: &Report) -> String {
    let ending = report.result.as_ref().and_then(|result| result.ending.as_ref());
    if let Some(failure) = ending.and_then(|ending| ending.failure.as_ref()) {
        return failure.message.clone();
    }
    match (&report.not_started, report.outcome.end) {
        (Some(error), _) => error.to_string(),
        (None, End::NeverFetched) => "the guest never fetched it".to_owned(),
        (None, End::Killed(KillReason::CopyIn { .. })) => "its files are not in place".to_owned(),
        (None, _) => match &report.exit {
            Some(exit) => exit.cause.to_string(),
            None => "the machine is gone".to_owned(),
        },
    }
}

impl Sandbox {
    /// Describes a sandbox step by step.
    pub fn builder() -> Builder {
        Builder::from_spec(JobSpec::new(Vec::<String>::new()))
    }
}

/// Describes a sandbox. Values are checked when it starts.
#[must_use = "it does nothing before it is started"]
pub struct Builder {
    spec: JobSpec,
    secrets: BTreeMap<String, String>,
    log: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    stderr: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    max_artifacts: u64,
    cgroup: Option<PathBuf>,
}

impl Builder {
    /// A sandbox of this description.
    pub fn from_spec(spec: JobSpec) -> Self {
        Self {
            spec,
            secrets: BTreeMap::new(),
            log: None,
            stderr: None,
            max_artifacts: u64::MAX,
            cgroup: None,
        }
    }

    /// The command and its arguments. The sandbox lasts as long as it runs.
    pub fn command<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.spec.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// The job's name. Without it, the job gets one that is free.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = Some(name.into());
        self
    }

    /// Sets a variable of the command's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.insert(name.into(), value.into());
        self
    }

    /// The working directory of the command: an absolute path in the guest.
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.spec.workdir = Some(directory.into());
        self
    }

    /// The user of the command: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = Some(user.into());
        self
    }

    /// The host name of the guest; by default the job's name.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.spec.hostname = Some(name.into());
        self
    }

    /// The words in front of the command, in place of those of the agent's configuration.
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.spec.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable that only the guest's agent gets.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.spec.secrets.insert(name.clone());
        self.secrets.insert(name, value.into());
        self
    }

    /// Boots this image: a name or digest of the image store, or the path of a disk image. Without
    /// it, the built-in guest is booted.
    pub fn image(mut self, image: impl Into<PathBuf>) -> Self {
        self.spec.machine.image = Some(image.into());
        self
    }

    /// Makes this directory of the host the guest's root: read-only, under a layer in memory.
    pub fn rootfs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spec.machine.rootfs = Some(directory.into());
        self
    }

    /// Mounts a directory of the host in the guest.
    pub fn volume(mut self, volume: VolumeSpec) -> Self {
        self.spec.machine.volumes.push(volume);
        self
    }

    /// The number of processors; 1 by default.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.spec.machine.cpus = cpus;
        self
    }

    /// Bytes of memory; 1 GiB by default.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.spec.machine.memory = Size(bytes);
        self
    }

    /// What the guest reaches besides the service; nothing by default.
    pub fn network(mut self, network: NetworkSpec) -> Self {
        self.spec.machine.network = network;
        self
    }

    /// Whether the machine may be restored from a snapshot; it may by default.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.spec.machine.snapshot = snapshot;
        self
    }

    /// Kills the command after this time. Zero is an error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout = Some(Period::unchecked(timeout));
        self
    }

    /// Copies a file or a directory into the guest before the command starts.
    pub fn copy_in(mut self, from: impl Into<PathBuf>, to: impl Into<String>) -> Self {
        self.spec.copy_in.push(CopyInSpec { from: from.into(), to: Some(to.into()) });
        self
    }

    /// Fetches a file or a directory of the guest when the command has ended.
    pub fn artifact(mut self, path: impl Into<String>, to: impl Into<PathBuf>) -> Self {
        self.spec.artifacts.push(ArtifactSpec { path: path.into(), to: Some(to.into()) });
        self
    }

    /// Limits all artifacts together, in bytes, whatever the description says. What is behind the
    /// limit is not fetched, and the [report](Report::exceeds_artifacts) says so. While an artifact is
    /// fetched, as many bytes again may be in temporary storage.
    pub const fn max_artifacts(mut self, bytes: u64) -> Self {
        self.max_artifacts = bytes;
        self
    }

    /// Changes a limit by its name: see the reference page on limits.
    pub fn limit(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.limits.insert(name.into(), value.into());
        self
    }

    /// Writes the log to this sink. A sink that is slow slows the command down. It is flushed when
    /// the job has ended, and shut down when the handle is dropped.
    pub fn log(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.log = Some(Box::pin(sink));
        self
    }

    /// Writes the command's stderr to this sink instead. Without it, the [log sink](Self::log) gets
    /// both outputs in the order in which they arrive.
    pub fn log_stderr(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.stderr = Some(Box::pin(sink));
        self
    }

    /// The machine joins this cgroup (v2), given by its directory: right after its start, or when it
    /// [takes over](Prepared::warm) a machine. A group that it cannot join is an error of the
    /// machine's start. The group must exist until the machine has ended, and is not removed.
    pub fn cgroup(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(directory.into());
        self
    }

    /// Checks the description, and finds its image.
    ///
    /// Cancellation: nothing is left.
    ///
    /// # Errors
    /// When the description is wrong, or the image cannot be used.
    pub async fn prepare(self) -> Result<Prepared, StartError> {
        let Self { spec, secrets, log, stderr, max_artifacts, cgroup } = self;
        let secret = |name: &str| secrets.get(name).cloned();
        let mut job = crate::blocking::block(|| Job::resolve(spec, secret))?;
        job.limits.limit_artifacts(max_artifacts);
        let plan = crate::blocking::block(|| Plan::resolve(&job))?;
        Ok(Prepared { job, plan, log, stderr, cgroup, warm: None })
    }

    /// Launches the sandbox: its machine is being started when this returns. Must be called within
    /// a tokio runtime.
    ///
    /// Cancellation: nothing is left.
    ///
    /// # Errors
    /// When the description is wrong, or something that the job needs cannot be opened.
    pub async fn launch(self) -> Result<Sandbox, StartError> {
        Ok(self.prepare().await?.launch().await?)
    }

    /// Launches the sandbox and waits until its guest has fetched the command.
    ///
    /// Cancellation: dropping the future ends the machine.
    ///
    /// # Errors
    /// As [`launch`](Self::launch), and when the job ends before.
    pub async fn start(self) -> Result<Sandbox, StartError> {
        let mut sandbox = self.launch().await?;
        sandbox.started().await.map_err(StartError::Ended)?;
        Ok(sandbox)
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builder").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// A sandbox whose description was checked.
#[must_use = "it does nothing before it is launched"]
pub struct Prepared {
    job: Job,
    plan: Plan,
    log: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    stderr: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    cgroup: Option<PathBuf>,
    warm: Option<Box<WarmMachine>>,
}

impl Prepared {
    /// Which warm machines it can take over. `None`: none.
    #[must_use]
    pub fn kind(&self) -> Option<WarmKind> {
        WarmKind::of(&self.job, &self.plan)
    }

    /// The machine that it needs.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Restores a machine that waits for a job of the same kind as this one. Completes when its
    /// agent waits.
    ///
    /// Cancellation: dropping the future ends the machine.
    ///
    /// # Errors
    /// When such a machine cannot wait, has no snapshot, or does not start.
    pub fn warm_up(&self) -> impl Future<Output = Result<WarmMachine, WarmError>> + Send + use<> {
        let (kind, plan) = (self.kind(), self.plan.clone());
        async move { WarmMachine::start(kind.ok_or(WarmError::NotPlain)?, plan).await }
    }

    /// Takes over this machine, if it is of the same [kind](Self::kind). Another one is ended.
    pub fn warm(mut self, machine: WarmMachine) -> Self {
        if self.kind().as_ref() == Some(machine.kind()) {
            self.warm = Some(Box::new(machine));
        }
        self
    }

    /// Launches the sandbox, as [`Builder::launch`].
    ///
    /// Cancellation: nothing is left.
    ///
    /// # Errors
    /// When something that the job needs cannot be opened.
    pub async fn launch(self) -> Result<Sandbox, LaunchError> {
        let Self { job, plan, log, stderr, cgroup, warm } = self;
        let mut launcher = Launcher::new(job).warm(warm).cgroup(cgroup);
        if let Some(sink) = log {
            launcher = launcher.log(sink);
        }
        if let Some(sink) = stderr {
            launcher = launcher.log_stderr(sink);
        }
        launcher.launch(plan).await
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Prepared").field("job", &self.job.name()).finish_non_exhaustive()
    }
}
