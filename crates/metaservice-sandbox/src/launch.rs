//! Starts a sandbox from a job and a plan. Opens what the job needs before its machine starts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metaservice::control::{self, MachineDescription, NetworkHandle};
use metaservice::{Cloud, Listener, MetaService, Volume};
use metaservice_qemu::Disk;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::agent::{AGENT, PLATFORM};
use crate::control::{Control, ControlError, Registered};
use crate::driver::{Driver, Parts};
use crate::event::{Event, EventSender};
use crate::force::{self, ForceOrders};
use crate::history::{Artifacts, Began, Jobs, Recorder};
use crate::job::Job;
use crate::life::{Rules, Start};
use crate::machine::{Describer, Individual, Plan, WarmMachine};
use crate::network::GuestNetwork;
use crate::output::log_sink::{self, LogSink};
use crate::place::{Place, PreparedDisk};
use crate::progress::{Progress, ProgressError};
use crate::sandbox::Sandbox;

/// How long a killed command may take until the guest reports it: the agent's grace period of 5 s
/// between SIGTERM and SIGKILL, and the way of the log's last bytes.
const KILL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the guest may take to answer the order to kill a command whose timeout has passed: the
/// job ends within 2 s of its timeout, also without its guest.
const TIMEOUT_ORDER_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long the log of a lost job may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the agent of a restored machine may take to fetch its job: some 100 ms, and what its
/// image renews first, such as the keys of a server.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Descriptors that a guest's connections leave to the log, the state, files and clients.
const SPARE_DESCRIPTORS: usize = 256;

/// How many bytes of the log's end are kept for clients, in a file without a name.
const KEPT_LOG: u64 = 64 * 1024 * 1024;

/// Why a job cannot be launched. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The control socket cannot be made, and the job has a name by which clients look for it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The log's file cannot be written.
    #[error("cannot write the log to {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no directory for temporary files.
    #[error(transparent)]
    Temporary(#[from] metaservice_private::bases::TemporaryDirectoryError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Progress(#[from] ProgressError),
    /// The service cannot be started.
    #[error(transparent)]
    Service(#[from] metaservice::StartError),
}

/// What a job is launched with, besides its description.
///
/// Most callers use [`Sandbox::builder`] instead.
#[must_use = "it does nothing before it is launched"]
pub struct Launcher {
    job: Job,
    sink: LogSink,
    stderr: Option<LogSink>,
    state: Option<PathBuf>,
    host_names: Vec<String>,
    cloud: Option<Cloud>,
    boot_timeout: Option<Duration>,
    prepared_disk: Option<PreparedDisk>,
    network: Option<GuestNetwork>,
    history: bool,
    volumes: Vec<Volume>,
    findable: bool,
    warm: Option<Box<WarmMachine>>,
    cgroup: Option<PathBuf>,
}

impl Launcher {
    /// A job whose log is discarded.
    pub fn new(job: Job) -> Self {
        Self {
            job,
            sink: Box::pin(tokio::io::sink()),
            stderr: None,
            state: None,
            host_names: Vec::new(),
            cloud: None,
            boot_timeout: None,
            prepared_disk: None,
            network: None,
            history: false,
            volumes: Vec::new(),
            findable: false,
            warm: None,
            cgroup: None,
        }
    }

    /// Takes over this machine, which fits the job.
    pub(crate) fn warm(mut self, machine: Option<Box<WarmMachine>>) -> Self {
        self.warm = machine;
        self
    }

    /// The machine joins this cgroup (v2), given by its directory.
    pub fn cgroup(mut self, directory: Option<PathBuf>) -> Self {
        self.cgroup = directory;
        self
    }

    /// Fails if clients could not find the job. Without this, only a job that has a name in its
    /// description fails.
    pub fn findable(mut self) -> Self {
        self.findable = true;
        self
    }

    /// Keeps what is known of the job when it has ended: see [`history`](crate::history). By
    /// default, nothing is kept. The limits of the job say how many ended jobs are kept.
    ///
    /// If it cannot be written, [`Event::NoHistory`] says so, and the job is as usual.
    pub fn history(mut self, keep: bool) -> Self {
        self.history = keep;
        self
    }

    /// Writes the log to `sink`, besides the file of the description. A sink that is slow slows the
    /// command down. It is flushed when the job has ended, and shut down when the handle is
    /// dropped.
    pub fn log(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.sink = Box::pin(sink);
        self
    }

    /// Writes the command's stderr to `sink` instead, if it is
    /// [separate](Job::separates_stderr). The file of the description gets both.
    pub fn log_stderr(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.stderr = Some(Box::pin(sink));
        self
    }

    /// Persists the job in a directory: after a restart with the same directory it continues.
    pub fn state(mut self, directory: Option<PathBuf>) -> Self {
        self.state = directory;
        self
    }

    /// Serves requests to these host names too, for a machine that runs elsewhere.
    pub fn host_names(mut self, names: Vec<String>) -> Self {
        self.host_names = names;
        self
    }

    /// Serves cloud-init this instance, for a machine that runs elsewhere.
    pub fn cloud(mut self, cloud: Option<Cloud>) -> Self {
        self.cloud = cloud;
        self
    }

    /// How long a guest that runs elsewhere may take to fetch its command. `None`: no limit.
    pub fn boot_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.boot_timeout = timeout;
        self
    }

    /// The machine writes this disk in place of its image, boots without a snapshot, and powers off
    /// in order if the command succeeds, within this time.
    pub fn write_disk(mut self, disk: Disk, power_off_timeout: Duration) -> Self {
        self.prepared_disk = Some(PreparedDisk { disk, power_off_timeout });
        self
    }

    /// The exit status of the job, if its state directory says that it has ended.
    ///
    /// # Errors
    /// When the state cannot be read, or belongs to another job.
    pub fn ended(&self) -> Result<Option<u8>, LaunchError> {
        let status = Progress::open(self.state.as_deref())?.status();
        if status.is_some() {
            self.service().check_state()?;
        }
        Ok(status)
    }

    /// Launches the job in a machine of this plan. Must be called within a tokio runtime.
    ///
    /// Waits for the reader of a FIFO that gets the log. Cancellation: nothing is left.
    ///
    /// # Errors
    /// When something that the job needs cannot be opened. The machine has not been started then.
    pub async fn launch(mut self, plan: Plan) -> Result<Sandbox, LaunchError> {
        self.choose_name();
        self.volumes = plan.volumes();
        let individual = Individual::of(&self.job, &plan);
        let restores = plan.may_restore() && self.prepared_disk.is_none();
        let rules = Rules {
            start: if restores { Start::Restore } else { Start::Boot },
            boot_timeout: Some(plan.boot_timeout()),
            disposable: plan.is_disposable(),
            ..self.rules()
        };
        let cloud = individual.cloud.clone();
        let network = GuestNetwork::new(self.job.hardware.network.policy().clone());
        self.network = Some(network.clone());
        let (warm, cgroup) = (self.warm.take(), self.cgroup.take());
        let mut opened = self.open_with(cloud, rules).await?;
        let place = Place::Machine {
            describer: Arc::new(Describer::new(Arc::new(plan))),
            individual: Box::new(individual),
            network,
            warm,
            cgroup,
            disk: opened.prepared_disk.take(),
        };
        Ok(opened.run(place))
    }

    /// Opens everything that the job needs, for a machine that another program starts. Must be
    /// called within a tokio runtime.
    ///
    /// Waits for the reader of a FIFO that gets the log. Cancellation: nothing is left.
    ///
    /// # Errors
    /// When something that the job needs cannot be opened.
    pub async fn open(mut self) -> Result<OpenJob, LaunchError> {
        self.choose_name();
        let rules = Rules { boot_timeout: self.boot_timeout, ..self.rules() };
        let cloud = self.cloud.clone();
        self.open_with(cloud, rules).await
    }

    /// Chooses a name that no other job has, also none that has ended.
    fn choose_name(&mut self) {
        if self.job.named {
            return;
        }
        if let Ok(jobs) = crate::blocking::block(Jobs::open) {
            let free = self.job.name.variants().find(|name| !jobs.has(name));
            self.job.name = free.unwrap_or_else(|| self.job.name.clone());
        }
    }

    /// What is known of the job when it starts.
    fn began(&self) -> Began {
        let job = &self.job;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let env = job.env.keys().chain(job.secrets.keys()).cloned();
        Began {
            started_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            command: job.shown.clone().unwrap_or_else(|| job.command.clone()),
            env: if job.shown.is_some() { Vec::new() } else { env.collect() },
            spec: job.described.clone(),
        }
    }

    fn rules(&self) -> Rules {
        let job = &self.job;
        Rules {
            start: Start::Boot,
            restore_timeout: RESTORE_TIMEOUT,
            boot_timeout: None,
            timeout: job.timeout,
            timeout_order_timeout: TIMEOUT_ORDER_TIMEOUT,
            order_timeout: control::KILL_ORDER_TIMEOUT,
            kill_timeout: KILL_TIMEOUT,
            copy_in_timeout: (!job.copy_in.is_empty()).then_some(job.limits.artifact_timeout),
            artifact_timeout: (!job.artifacts.is_empty()).then_some(job.limits.artifact_timeout),
            close_timeout: CLOSE_TIMEOUT,
            keep: job.keep,
            persistent: self.state.is_some(),
            disposable: false,
        }
    }

    /// What makes the job this one and no other, and where its state is.
    fn service(&self) -> metaservice::Builder {
        let job = &self.job;
        let builder = MetaService::builder(job.command.clone()).envs(job.env.clone());
        let mut builder = builder.stdin(job.stdin).volumes(self.volumes.iter().cloned());
        if let Some(size) = job.terminal {
            builder = builder.terminal(size);
        }
        builder = builder.separate(job.separates_stderr());
        if let Some(directory) = &self.state {
            builder = builder.state(directory);
        }
        if !job.copy_in.is_empty() {
            builder = builder.hold();
        }
        job.options.add_to(builder)
    }

    async fn open_with(
        mut self,
        cloud: Option<Cloud>,
        rules: Rules,
    ) -> Result<OpenJob, LaunchError> {
        let (sender, events) = mpsc::unbounded_channel();
        let artifacts = Artifacts::default();
        let sender = EventSender { sender, artifacts: artifacts.clone() };
        let began = self.began();
        let keep = self.history.then_some(&self.job.limits.history);
        let mut made = match crate::control::register(&self.job.name, &began, keep) {
            Ok(registered) => Some(registered),
            Err(error) if self.findable || self.job.named && !error.is_full() => {
                return Err(error.into());
            }
            // The job does not depend on it, and no client knows its name.
            Err(error) => {
                sender.send(Event::NoControl(error));
                None
            }
        };
        if let Some(full) = made.as_mut().and_then(|registered| registered.full.take()) {
            sender.send(Event::NoHistory(full));
        }
        let progress = Progress::open(self.state.as_deref())?;
        let sink = std::mem::replace(&mut self.sink, Box::pin(tokio::io::sink()));
        let job = &self.job;
        let stderr = self.stderr.take().filter(|_| job.separates_stderr());
        let (log, stderr) =
            log_sink::open(sink, stderr, job.log.clone()).await.map_err(|cause| {
                LaunchError::Log { path: job.log.clone().unwrap_or_default(), cause }
            })?;
        let mut builder = self
            .service()
            .log(log)
            .temporary_directory(metaservice_private::bases::temporary()?)
            .keep_log(KEPT_LOG)
            .hostname(job.hostname())
            .session(job.session)
            .limits(within_descriptors(job.limits.service.clone()));
        if let Some((log, index)) = made.as_mut().and_then(|registered| registered.log.take()) {
            builder = builder.keep_log_in(log, index);
        }
        if let Some(stderr) = stderr {
            builder = builder.log_stderr(stderr);
        }
        for (name, value) in &job.secrets {
            builder = builder.secret(name, value);
        }
        for name in &self.host_names {
            builder = builder.host_name(name);
        }
        if let Some(cloud) = cloud {
            builder = builder.cloud(cloud).agent(PLATFORM, AGENT);
        }
        let service = builder.start()?;
        let machine = MachineDescription::default();
        let files = made.as_ref().map(|registered| registered.files.clone());
        let started = UNIX_EPOCH + Duration::from_millis(began.started_ms);
        let recorder = files.filter(|files| files.claim.is_kept()).map(|files| Recorder {
            claim: Arc::clone(&files.claim),
            began,
            artifacts,
        });
        let (force, forces) = force::channel();
        let control = made.map(|Registered { listener, files, .. }| {
            let mut description = control::Description::from(job.name());
            description.command.clone_from(&job.shown);
            // Clients know a job by its name and this time, also after its end.
            description.started = Some(started);
            description.machine = machine.clone();
            description.force = Some(force);
            description.network = self.network.take().map(NetworkHandle::new);
            description.keeps_on_failure = job.keep.is_some();
            let serving = control::serve(description, service.clone(), listener);
            Control::new(files, serving)
        });
        let prepared_disk = self.prepared_disk.take();
        let job = Arc::new(self.job);
        Ok(OpenJob {
            job,
            service,
            control,
            recorder,
            machine,
            forces,
            progress,
            prepared_disk,
            rules,
            sender,
            events,
        })
    }
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Launcher").field("job", &self.job.name()).finish_non_exhaustive()
    }
}

/// A job with everything that it needs besides its machine. Dropping it removes everything.
#[must_use = "the job waits for its machine"]
pub struct OpenJob {
    job: Arc<Job>,
    service: MetaService,
    control: Option<Control>,
    recorder: Option<Recorder>,
    machine: MachineDescription,
    forces: ForceOrders,
    progress: Progress,
    prepared_disk: Option<PreparedDisk>,
    rules: Rules,
    sender: EventSender,
    events: mpsc::UnboundedReceiver<Event>,
}

impl std::fmt::Debug for OpenJob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenJob").field("job", &self.job.name()).finish_non_exhaustive()
    }
}

impl OpenJob {
    /// Serves the job to a machine that connects to the service through `listener`. Must be called
    /// within a tokio runtime.
    pub fn serve<L>(self, listener: L) -> Sandbox
    where
        L: Listener + Send + 'static,
    {
        let served = CancellationToken::new();
        let guard = served.clone().drop_guard();
        let service = self.service.clone();
        let serving = async move {
            service.serve(listener).await;
            drop(guard);
        };
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        self.run(Place::Elsewhere { _serving: serving, served })
    }

    fn run(self, place: Place) -> Sandbox {
        let (signal, signals) = mpsc::unbounded_channel();
        let span = tracing::info_span!("sandbox", name = self.job.name());
        let Self { job, service, control, recorder, machine, forces, progress, rules, .. } = self;
        let (sender, events) = (self.sender, self.events);
        let started = CancellationToken::new();
        let name = job.name().to_owned();
        let driver = Driver::new(Parts {
            job,
            service: service.clone(),
            control,
            recorder,
            machine,
            progress,
            place,
            rules,
            events: sender,
            signals,
            forces,
            started: started.clone(),
        });
        let driving = AbortOnDropHandle::new(tokio::spawn(driver.run().instrument(span)));
        Sandbox::new(service, driving, signal, events, started, name)
    }
}

/// As many connections as there are descriptors for, with some to spare.
fn within_descriptors(mut limits: metaservice::Limits) -> metaservice::Limits {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limits.connections = limits.connections.min(most.saturating_sub(SPARE_DESCRIPTORS).max(16));
    limits
}
