//! `metaservice worker`: run jobs of a queue on this host.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use clap::Args;
use metaservice_fleet::metrics::{self, Metrics};
use metaservice_fleet::name::WorkerName;
use metaservice_fleet::requirement::Requirement;
use metaservice_fleet::sealed::WorkerKey;
use metaservice_fleet::server::{LocalServer, ServerError};
use metaservice_fleet::worker::{self, Events, Groups, Options, WorkerError};
use metaservice_qemu::{Accelerator, Arch};
use metaservice_sandbox::spec::Size;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::StoreArgs;
use super::connection::QueueArgs;
use super::report::Reporter;
use super::warm::WarmArg;
use crate::description;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;
use crate::{hints, local_queue};

const HELP: &str = "\
Examples:
  metaservice worker --slots 2
  metaservice worker --queue nats://queue.example:4222 --slots 8 --label kvm
  metaservice worker --slots 4 --warm builtin=4,debian@2G=1
  metaservice worker --once
  metaservice worker --metrics 127.0.0.1:9464

With --json, each event is a line of JSON on standard error, with its time and the name of the
worker, and with the id and the attempt of a job. Under systemd with Type=notify, the worker says
when it is ready and when it stops.

Ctrl-C and SIGTERM: take no more jobs, and end when the running ones have ended. A second one ends
the machines at once; their jobs go to other workers.

Exit status: 0, or 125 if the worker cannot work.";

/// Run the jobs of a queue on this host.
///
/// Without --queue, it starts a nats-server on this host, at loopback, with its data in the state
/// directory of metaservice.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Worker {
    /// How many jobs to run at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
    /// The name of the worker, which is unique in the queue [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<WorkerName>,
    /// Something that this host has, for jobs with --require. Repeatable.
    ///
    /// A worker has the labels arch=ARCH (x86_64, aarch64) and os=linux by itself, and kvm if KVM
    /// works.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    pub(crate) label: Vec<String>,
    /// The memory of all machines together [default: three quarters of the host's].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// The most bytes of a job's log. A job that has more is killed.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) max_log: Size,
    /// The most bytes of all artifacts of a job together. A job that has more has no result.
    ///
    /// While they are stored, they take up to twice as much of the disk.
    #[arg(long, value_name = "SIZE", default_value = "16G")]
    pub(crate) max_artifacts: Size,
    /// Take no job while less is free on the disk of the worker's directory.
    ///
    /// "workers" then shows the reason "disk".
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) min_free_disk: Size,
    /// Keep machines that wait for jobs: IMAGE[@MEMORY[/CPUS]]=COUNT, with commas between.
    ///
    /// A job whose machine is the same takes one over, and its command starts at once. "builtin" is
    /// the built-in guest. Without MEMORY and CPUS, the machine is that of a job which names none.
    /// The waiting machines use what the running jobs leave of --memory, as measured.
    #[arg(long, value_name = "MACHINES", value_delimiter = ',')]
    pub(crate) warm: Vec<WarmArg>,
    /// How many servers of a cluster keep a copy of the queue: 1 to 5.
    ///
    /// It counts for the first connection to a new queue, which creates its buckets.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) replicas: u8,
    /// How long jobs may still run when the worker ends. Then they return to the queue.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) drain_timeout: String,
    /// End when the queue has no more jobs for this worker.
    #[arg(long)]
    pub(crate) once: bool,
    /// End after this time without a job.
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_exit: Option<String>,
    /// The file of the key that opens secrets of jobs. If there is none, it is made.
    ///
    /// All workers of a queue that run such jobs need the same file. The worker prints its public
    /// key, for "submit --seal-for".
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Serve metrics for Prometheus at this address, by HTTP: /metrics, /healthz and /readyz.
    ///
    /// There is no authentication: use loopback, unless you mean it. With port 0, the system chooses
    /// a port, which the worker prints.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

pub(crate) async fn worker(args: Worker, printer: Printer) -> Result<ExitStatus> {
    let mut options = options(&args)?;
    // What it starts from now on, also the server, is in the group of the worker.
    options.groups = match Groups::delegated(&options.name) {
        Ok(groups) => Some(groups),
        Err(error) => {
            tracing::info!("all jobs share the processors: {:#}", anyhow::Error::from(error));
            None
        }
    };
    if let Some(key) = &options.key {
        printer.note(&format!("secrets are sealed for {}", key.public()));
    }
    let reporter = Reporter::new(printer, &options);
    let mut interrupts = Interrupts::listen()?;
    // The end-point also says that a worker starts, so it is there before the queue.
    let endpoint = match args.metrics {
        Some(address) => Some(endpoint(address, &options, &reporter).await?),
        None => None,
    };
    let mut server = match args.queue.is_given() {
        true => None,
        false => Some(local_server().await?),
    };
    let queue = match &server {
        Some(server) => args.queue.connect_to(server.url().to_owned(), 1).await?,
        None => args.queue.connect_with(args.replicas).await?,
    };
    if let Some(workers) = options.directory.parent() {
        remove_unused(workers, &options.directory);
    }
    let (events, mut reported) = mpsc::unbounded_channel();
    let events = match &endpoint {
        Some((metrics, _)) => Events::from(events).counted(metrics.clone()),
        None => events.into(),
    };
    let drain = CancellationToken::new();
    let mut working = std::pin::pin!(worker::run(queue, options, drain.clone(), events));
    let summary = loop {
        tokio::select! {
            ended = &mut working => break ended.map_err(failed)?,
            Some(event) = reported.recv() => reporter.report(&event),
            interrupt = interrupts.next() => {
                if drain.is_cancelled() {
                    return Ok(ExitStatus::signal(interrupt.number));
                }
                drain.cancel();
            }
            () = ended(&mut server) => return Err(anyhow::Error::msg("nats-server has ended")),
        }
    };
    while let Ok(event) = reported.try_recv() {
        reporter.report(&event);
    }
    if let Some(server) = server {
        server.stop().await;
    }
    printer.note(&format!("{} attempts, {} results", summary.claimed, summary.ended));
    Ok(ExitStatus::SUCCESS)
}

fn failed(error: WorkerError) -> Error {
    match error {
        error @ WorkerError::Name { .. } => hints::hinted(
            "give it a --name of its own; if the other one was killed, wait 15 s",
            error.to_string(),
        ),
        error => Error::new(error),
    }
    .context("cannot work")
}

/// Directories of workers that no worker uses for so long are removed.
const UNUSED: Duration = Duration::from_hours(7 * 24);

/// Removes what workers have left that do not come back. It costs no worker its work.
fn remove_unused(workers: &Path, own: &Path) {
    match worker::remove_unused(workers, own, UNUSED) {
        Ok(removed) if removed > 0 => tracing::info!(removed, "removed what old workers have left"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "what old workers have left is not removed"),
    }
}

/// Serves metrics until the value is dropped.
async fn endpoint(
    address: SocketAddr,
    options: &Options,
    reporter: &Reporter,
) -> Result<(Metrics, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("in --metrics: cannot listen at {address}"))?;
    reporter.serves(listener.local_addr().unwrap_or(address));
    let metrics = Metrics::new(&options.name, options.slots);
    let serving = tokio::spawn(metrics::serve(listener, metrics.clone()));
    Ok((metrics, AbortOnDropHandle::new(serving)))
}

async fn ended(server: &mut Option<LocalServer>) {
    match server {
        Some(server) => server.ended().await,
        None => std::future::pending().await,
    }
}

async fn local_server() -> Result<LocalServer> {
    let directory = local_queue::directory()?.join("server");
    LocalServer::start(&directory).await.map_err(|error| match error {
        ServerError::NotInstalled => hints::hinted(
            "\"metaservice doctor --install\" installs it; or give the --queue of another host",
            "there is no nats-server on this host",
        ),
        ServerError::Running(_) => hints::hinted(
            "a second worker of this host joins it with --queue local and a --name of its own",
            "another worker of this user runs the queue of this host",
        ),
        error => error.into(),
    })
}

fn options(args: &Worker) -> Result<Options> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name().context("give a --name: the host name is no name of a worker")?,
    };
    let memory = match &args.memory {
        Some(text) => text.parse::<Size>().context("in --memory")?.0,
        None => host_memory(),
    };
    let period = |text: &str, flag| -> Result<Duration> {
        let period = description::period(Some(text), flag)?;
        Ok(period.map(metaservice_sandbox::spec::Period::get).unwrap_or_default())
    };
    let idle = args.idle_exit.as_deref().map(|text| period(text, "--idle-exit")).transpose()?;
    let mut labels: BTreeSet<String> = args.label.iter().cloned().collect();
    if Accelerator::Auto.choose(Arch::HOST).is_ok_and(|choice| choice.kvm) {
        labels.insert("kvm".to_owned());
    }
    let directory = local_queue::directory()?.join("workers").join(name.as_str());
    Ok(Options {
        name,
        slots: args.slots,
        features: worker::host_features(labels),
        memory,
        store: args.store.open()?,
        key: args.key.as_deref().map(WorkerKey::of_file).transpose().context("in --key")?,
        max_log: args.max_log.0,
        max_artifacts: args.max_artifacts.0,
        min_free_disk: args.min_free_disk.0,
        groups: None,
        warm: args.warm.iter().map(|warm| warm.0.clone()).collect(),
        directory,
        once: args.once,
        idle_exit: idle,
        drain_timeout: period(&args.drain_timeout, "--drain-timeout")?,
    })
}

/// A label is what a requirement can name, other than memory and processors.
fn label(text: &str) -> Result<String> {
    match text.parse()? {
        Requirement::Label(label) => Ok(label),
        _ => Err(anyhow::Error::msg("the worker measures memory and processors itself")),
    }
}

fn host_name() -> Result<WorkerName> {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let first = name.split('.').next().unwrap_or_default();
    Ok(first.parse()?)
}

/// Three quarters of the memory of this host, in bytes.
fn host_memory() -> u64 {
    let information = rustix::system::sysinfo();
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let total = information.totalram as u64 * u64::from(information.mem_unit);
    total / 4 * 3
}
