//! A job that runs, as one handle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use metaservice::{Command, Destination, ListRequest, MetaService, ReadRequest, WriteError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::event::Event;
use crate::job::{InvalidJob, Job};
use crate::launch::{LaunchError, Launcher};
use crate::life::{End, Signal};
use crate::machine::{Plan, PlanError};
use crate::report::Report;
use crate::spec::{ArtifactSpec, JobSpec, NetSpec, Period, Size};

/// A job in a virtual machine: the machine, its network card and its service as one handle.
///
/// Make one with [`Sandbox::builder`]. Dropping it kills the machine and removes everything.
///
/// ```no_run
/// use metaservice_sandbox::Sandbox;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let sandbox = Sandbox::builder().image("debian").command(["sleep", "infinity"]).start().await?;
/// let output = sandbox.exec(["uname", "-r"]).output().await?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// sandbox.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct Sandbox {
    service: MetaService,
    driving: AbortOnDropHandle<Report>,
    signals: mpsc::UnboundedSender<Signal>,
    events: Option<Events>,
    started: CancellationToken,
}

/// The events of a job, in order.
#[derive(Debug)]
pub struct Events(mpsc::UnboundedReceiver<Event>);

impl Events {
    /// The next event; `None` after the last one.
    ///
    /// Cancellation: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl futures_core::Stream for Events {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        self.0.poll_recv(context)
    }
}

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
    match (&report.not_started, report.outcome.end) {
        (Some(error), _) => error.to_string(),
        (None, End::NeverFetched) => "the guest never fetched it".to_owned(),
        (None, _) => match &report.exit {
            Some(exit) => exit.cause.to_string(),
            None => "the machine is gone".to_owned(),
        },
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Describes a sandbox step by step.
    pub fn builder() -> Builder {
        Builder::from_spec(JobSpec::new(Vec::<String>::new()))
    }

    pub(crate) fn new(
        service: MetaService,
        driving: AbortOnDropHandle<Report>,
        signals: mpsc::UnboundedSender<Signal>,
        events: mpsc::UnboundedReceiver<Event>,
        started: CancellationToken,
    ) -> Self {
        Self { service, driving, signals, events: Some(Events(events)), started }
    }

    /// The service of the job, by which the host acts in the guest.
    #[must_use]
    pub fn service(&self) -> &MetaService {
        &self.service
    }

    /// A command in the guest, beside the job's own. It is not started before one of its methods
    /// starts it.
    pub fn exec<S: Into<String>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Command<'_, MetaService> {
        self.service.exec(command)
    }

    /// A file or a directory of the guest, to be read.
    pub fn read(&self, path: impl Into<String>) -> ReadRequest<'_> {
        self.service.read(path)
    }

    /// Writes a file or a directory of the guest, and gives the number of bytes.
    ///
    /// # Errors
    /// When the guest cannot write it, or `source` cannot be read.
    pub async fn write<R: AsyncRead + Send + Unpin>(
        &self,
        destination: Destination,
        source: R,
    ) -> Result<u64, WriteError> {
        self.service.write(destination, source).await
    }

    /// A directory of the guest, to be listed.
    pub fn list(&self, path: impl Into<String>) -> ListRequest<'_> {
        self.service.list(path)
    }

    /// The events of the job. The first call gets all of them, later calls none.
    pub fn events(&mut self) -> Events {
        self.events.take().unwrap_or_else(|| Events(mpsc::unbounded_channel().1))
    }

    /// Ends the job as a signal to its process does: the first kills the command, and artifacts are
    /// fetched; the second ends everything at once.
    pub fn signal(&self, signal: Signal) {
        // A job that has ended needs no signal.
        let _ = self.signals.send(signal);
    }

    /// Completes when the guest has fetched its command.
    ///
    /// # Errors
    /// When the job ended before.
    pub async fn started(&mut self) -> Result<(), Box<Report>> {
        let started = self.started.clone();
        tokio::select! {
            biased;
            () = started.cancelled() => Ok(()),
            report = &mut self.driving => Err(Box::new(completed(report))),
        }
    }

    /// Waits until the job has ended and everything is cleaned up.
    ///
    /// # Panics
    /// When it is called again after it has returned.
    pub async fn wait(&mut self) -> Report {
        completed((&mut self.driving).await)
    }

    /// Kills the command, fetches the artifacts, ends the machine and waits for all of it.
    pub async fn stop(mut self) -> Report {
        const SIGTERM: u8 = 15;
        self.signal(Signal(SIGTERM));
        self.wait().await
    }
}

/// The driver does not panic, and is not aborted while the handle is there.
fn completed(report: Result<Report, tokio::task::JoinError>) -> Report {
    match report {
        Ok(report) => report,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the sandbox has ended: {error}"),
        },
    }
}

/// Describes a sandbox. Values are checked when it starts.
#[must_use = "it does nothing before it is started"]
pub struct Builder {
    spec: JobSpec,
    secrets: BTreeMap<String, String>,
    log: Option<std::pin::Pin<Box<dyn AsyncWrite + Send>>>,
    state: Option<PathBuf>,
}

impl Builder {
    /// A sandbox of this description.
    pub fn from_spec(spec: JobSpec) -> Self {
        Self { spec, secrets: BTreeMap::new(), log: None, state: None }
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
    pub fn network(mut self, network: NetSpec) -> Self {
        self.spec.machine.net = network;
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

    /// Fetches a file of the guest when the command has ended.
    pub fn artifact(mut self, path: impl Into<String>, to: impl Into<PathBuf>) -> Self {
        self.spec.artifacts.push(ArtifactSpec { path: path.into(), to: Some(to.into()) });
        self
    }

    /// Changes a limit by its name: see the reference page on limits.
    pub fn limit(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.limits.insert(name.into(), value.into());
        self
    }

    /// Writes the log to this sink. A sink that is slow slows the command down.
    pub fn log(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.log = Some(Box::pin(sink));
        self
    }

    /// Launches the sandbox: its machine is being started when this returns. Must be called within a
    /// tokio runtime.
    ///
    /// Cancellation: nothing is left.
    ///
    /// # Errors
    /// When the description is wrong, or something that the job needs cannot be opened.
    pub async fn launch(self) -> Result<Sandbox, StartError> {
        let Self { spec, secrets, log, state } = self;
        let job = crate::block(|| Job::resolve(spec, |name| secrets.get(name).cloned()))?;
        let plan = crate::block(|| Plan::resolve(&job))?;
        let launcher = Launcher::new(job).state(state);
        let launcher = match log {
            Some(sink) => launcher.log(sink),
            None => launcher,
        };
        Ok(launcher.launch(plan).await?)
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
