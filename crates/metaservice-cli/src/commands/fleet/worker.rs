//! `metaservice worker`: run jobs of a queue on this host.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use metaservice_fleet::name::WorkerName;
use metaservice_fleet::server::{LocalServer, ServerError};
use metaservice_fleet::step::Outcome;
use metaservice_fleet::worker::{self, Event, Options};
use metaservice_sandbox::spec::Size;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection::{self, QueueArgs};
use super::warm::{BUILTIN, WarmArg};
use crate::description;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::printer::Printer;
use crate::status::ExitStatus;

const HELP: &str = "\
Examples:
  metaservice worker --slots 2
  metaservice worker --queue nats://queue.example:4222 --slots 8 --label kvm
  metaservice worker --slots 4 --warm builtin=4,debian@2G=1
  metaservice worker --once

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
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// The memory of all machines together [default: three quarters of the host's].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// The most bytes of a job's log. A job that has more is killed.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) max_log: Size,
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
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

pub(crate) async fn worker(args: Worker, printer: Printer) -> Result<ExitStatus> {
    let options = options(&args)?;
    let mut interrupts = Interrupts::listen()?;
    let mut server = match args.queue.is_given() {
        true => None,
        false => Some(local_server().await?),
    };
    let queue = match &server {
        Some(server) => args.queue.connect_to(server.url().to_owned(), 1).await?,
        None => args.queue.connect_with(args.replicas).await?,
    };
    let (events, mut reported) = mpsc::unbounded_channel();
    let drain = CancellationToken::new();
    let mut working = std::pin::pin!(worker::run(queue, options, drain.clone(), events));
    let summary = loop {
        tokio::select! {
            ended = &mut working => break ended.context("cannot work")?,
            Some(event) = reported.recv() => report(&event, printer),
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
        report(&event, printer);
    }
    if let Some(server) = server {
        server.stop().await;
    }
    printer.note(&format!("{} attempts, {} results", summary.claimed, summary.ended));
    Ok(ExitStatus::SUCCESS)
}

async fn ended(server: &mut Option<LocalServer>) {
    match server {
        Some(server) => server.ended().await,
        None => std::future::pending().await,
    }
}

async fn local_server() -> Result<LocalServer> {
    let directory = connection::directory()?.join("server");
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
    let directory = connection::directory()?.join("workers").join(name.as_str());
    Ok(Options {
        name,
        slots: args.slots,
        labels: args.label.iter().cloned().collect::<BTreeSet<_>>(),
        memory,
        max_log: args.max_log.0,
        warm: args.warm.iter().map(|warm| warm.0.clone()).collect(),
        directory,
        once: args.once,
        idle_exit: idle,
        drain_timeout: period(&args.drain_timeout, "--drain-timeout")?,
    })
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

fn report(event: &Event, printer: Printer) {
    let (name, details, text) = words(event);
    printer.event(name, details);
    printer.note(&text);
}

fn words(event: &Event) -> (&'static str, serde_json::Value, String) {
    match event {
        Event::Ready => ("ready", json!({}), "ready".to_owned()),
        Event::Claimed { id, attempt } => (
            "claimed",
            json!({ "id": id, "attempt": attempt }),
            format!("{id}: attempt {attempt} begins"),
        ),
        Event::Started { id, attempt, warm } => {
            let machine = if *warm { "a machine that waited" } else { "a machine of its own" };
            let text = format!("{id}: attempt {attempt} gets {machine}");
            ("started", json!({ "id": id, "attempt": attempt, "warm": warm }), text)
        }
        Event::NotWarm { image, message } => {
            let name = image.as_deref().unwrap_or(BUILTIN);
            let text = format!("no {name} machine waits for jobs: {message}");
            ("notWarm", json!({ "image": image, "message": message }), text)
        }
        Event::Ended { id, attempt, outcome } => (
            "ended",
            json!({ "id": id, "attempt": attempt, "outcome": outcome }),
            match outcome {
                Outcome::Finished { status, .. } => format!("{id}: ended with status {status}"),
                _ => format!("{id}: cancelled"),
            },
        ),
        Event::Lost { id, attempt, cause, message } => (
            "lost",
            json!({ "id": id, "attempt": attempt, "cause": cause, "message": message }),
            format!("{id}: attempt {attempt} has no result: {message}"),
        ),
        Event::Dropped { id, attempt } => (
            "dropped",
            json!({ "id": id, "attempt": attempt }),
            format!("{id}: attempt {attempt} was dropped: the job is not this worker's any more"),
        ),
        Event::Draining => {
            ("draining", json!({}), "taking no more jobs; Ctrl-C again ends them".to_owned())
        }
        Event::Cut => {
            let text = "no server of the queue answers: the machines were ended";
            ("cut", json!({}), text.to_owned())
        }
        Event::Down => {
            let text = "the queue is down; the machines continue, and logs and results wait here";
            ("down", json!({}), text.to_owned())
        }
        Event::Back => ("back", json!({}), "the queue answers again".to_owned()),
        Event::Full { id, reason } => (
            "full",
            json!({ "id": id, "reason": reason }),
            format!("{id}: waiting: the queue takes no output: {reason}"),
        ),
        event => ("event", json!({}), format!("{event:?}")),
    }
}
