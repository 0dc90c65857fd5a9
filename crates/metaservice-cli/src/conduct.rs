//! A job from the guest's first sign of life to the last artifact.
//!
//! ```text
//!  waiting ──fetched──► running ──result──────────────────────────► ended ─► artifacts
//!     │                    ├─ --timeout, a signal, a broken log ─► killing ─┘
//!     ▼                    ▼
//!   lost: the machine is gone, the guest never came
//! ```
//!
//! `run` and `serve` share this; they differ in what it means that the guest is gone.

use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use metaservice::control::{self, MachineDescription};
use metaservice::{Bounds, Builder, JobResult, LogError, MetaService, Reason};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::agent::{AGENT, PLATFORM};
use crate::interrupts::{Interrupt, Interrupts};
use crate::ledger::Ledger;
use crate::printer::Printer;
use crate::settings::JobSettings;
use crate::sockets::SocketFile;
use crate::status::ExitStatus;
use crate::{artifacts, contact, drain, output, remarks, sockets};

/// How long a killed command may take until the guest reports it: the agent's own
/// grace of 5 s between SIGTERM and SIGKILL, and the way of the last log bytes.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// How long what was received of the log may take to be written, where there is an error to tell.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Descriptors that a guest's connections leave to the log, the state, files and control.
const SPARE_DESCRIPTORS: usize = 256;

/// How much of the log's end is kept for `logs`, in a file without a name.
const KEPT_LOG: u64 = 64 * 1024 * 1024;

/// Why the job is over.
#[derive(Debug)]
enum End {
    Result(JobResult),
    TimedOut(Duration),
    Interrupted(Interrupt),
    LogFailed(LogError),
}

/// How a job was seen through.
pub(crate) enum Conclusion {
    /// In order: the service is shut down, the guest's last request may get its answer.
    Orderly(ExitStatus),
    /// The user does not want to wait for anything any longer.
    AtOnce(ExitStatus),
}

/// The control socket of a job and the task that serves it.
pub(crate) struct Control {
    socket: Option<SocketFile>,
    serving: Option<JoinHandle<()>>,
    /// What `inspect` shows of the machine.
    pub(crate) machine: MachineDescription,
}

impl Control {
    /// Waits until clients have their answers, for as long as they take some of them: after a
    /// shutdown. A signal ends the wait.
    pub(crate) async fn end(mut self, interrupts: &mut Interrupts) {
        // It is not found any longer.
        self.socket = None;
        if let Some(serving) = self.serving.take() {
            tokio::select! {
                _ = serving => {}
                _ = interrupts.next() => {}
            }
        }
    }
}

/// What makes the job this one and no other, and where its state is kept.
pub(crate) fn job(settings: &JobSettings) -> Builder {
    let mut builder = MetaService::builder(settings.command.clone()).envs(settings.env.clone());
    if let Some(size) = settings.terminal {
        builder = builder.terminal(size);
    }
    if let Some(folder) = &settings.state {
        builder = builder.state(folder);
    }
    builder
}

/// Starts the service that the settings describe, and its control socket.
pub(crate) async fn start(
    settings: &JobSettings,
    printer: Printer,
) -> Result<(MetaService, Control)> {
    let bound = match sockets::bind_control(&settings.name).await {
        Ok(control) => Some(control),
        Err(error) if settings.named => return Err(error),
        // The job does not depend on it, and nobody asked for it by name.
        Err(error) => {
            printer.error(&error.context("the job cannot be controlled from outside"));
            None
        }
    };
    let mut builder = job(settings)
        .log(drain::open(settings, printer).await?)
        .temporary_folder(metaservice_private::bases::temporary()?)
        .keep_log(KEPT_LOG)
        .hostname(&settings.name)
        .session(settings.session)
        .bounds(within_descriptors(settings.bounds.service.clone()));
    for (name, value) in &settings.secrets {
        builder = builder.secret(name, value);
    }
    for name in &settings.host_names {
        builder = builder.host_name(name);
    }
    if let Some(cloud) = &settings.cloud {
        builder = builder.cloud(cloud.clone()).agent(PLATFORM, AGENT);
    }
    let service = builder.start()?;
    let machine = MachineDescription::default();
    let mut control = Control { socket: None, serving: None, machine: machine.clone() };
    if let Some((listener, socket)) = bound {
        let (name, command) = (settings.name.clone(), settings.shown.clone());
        let description = control::Description { name, command, machine };
        let serving = control::serve(description, service.clone(), listener);
        control.socket = Some(socket);
        control.serving = Some(tokio::spawn(serving));
    }
    Ok((service, control))
}

/// Sees the job through and says what to exit with. `gone` completes when the guest
/// can do nothing any longer, `boot` when its first request is overdue; both say why. `known` is what
/// is known of the machine of a silent guest.
pub(crate) async fn conduct(
    service: &MetaService,
    settings: &JobSettings,
    printer: Printer,
    interrupts: &mut Interrupts,
    gone: impl Future<Output = Error>,
    boot: impl Future<Output = Error>,
    known: impl Fn() -> String,
) -> Result<Conclusion> {
    let mut gone = pin!(gone);
    let mut lost = None;
    let end = tokio::select! {
        biased;
        end = run(service, settings, printer, interrupts, boot, known) => end,
        error = &mut gone => match service.try_result() {
            Some(result) => {
                lost = Some(error);
                Ok(End::Result(result))
            }
            None => Err(error),
        },
    };
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            // What the guest said last explains it best.
            let _ = tokio::time::timeout(LAST_WORDS, service.shutdown()).await;
            return Err(error);
        }
    };
    if let (End::Interrupted(interrupt), false) = (&end, service.is_fetched()) {
        // There is no command to kill, and no agent to ask for anything.
        printer.note(&format!("{}: stopped before the guest fetched its command", interrupt.name));
        return Ok(Conclusion::AtOnce(ExitStatus::signal(interrupt.number)));
    }
    if let (End::Interrupted(interrupt), Some(folder)) = (&end, &settings.state) {
        let folder = folder.display();
        // A log that stands still is no reason to stay: what was confirmed is on the disk.
        let saved = tokio::select! {
            biased;
            saved = service.shutdown() => saved,
            again = interrupts.next() => {
                printer.note(&format!("{}: stopped at once; the state is in {folder}", again.name));
                return Ok(Conclusion::AtOnce(ExitStatus::signal(again.number)));
            }
        };
        printer.note(&format!("{}: the job goes on by the state in {folder}", interrupt.name));
        saved.context("the log is not complete")?;
        return Ok(Conclusion::AtOnce(ExitStatus::signal(interrupt.number)));
    }
    if unread(&end) && settings.ends_with_us && settings.artifacts.is_empty() {
        // As a process that SIGPIPE ends: nobody wants anything of it any longer.
        return Ok(Conclusion::AtOnce(ExitStatus::UNREAD));
    }
    announce(printer, &end);
    tokio::select! {
        biased;
        status = finish(service, settings, printer, end, lost, gone) => {
            Ok(Conclusion::Orderly(status?))
        }
        interrupt = interrupts.next() => {
            printer.note(&format!("{}: stopped at once", interrupt.name));
            Ok(Conclusion::AtOnce(ExitStatus::signal(interrupt.number)))
        }
    }
}

/// Whether the job ends because nobody reads standard output any longer.
fn unread(end: &End) -> bool {
    matches!(end, End::LogFailed(error) if output::is_closed(&Error::new(error.clone())))
}

/// Kills a command that has not ended, fetches the artifacts, ends the service.
async fn finish(
    service: &MetaService,
    settings: &JobSettings,
    printer: Printer,
    end: End,
    mut lost: Option<Error>,
    mut gone: Pin<&mut impl Future<Output = Error>>,
) -> Result<ExitStatus> {
    let mut ledger = Ledger::open(settings.state.as_deref())?;
    if !matches!(end, End::Result(_)) {
        tokio::select! {
            () = kill(service, matches!(end, End::TimedOut(_)), printer) => {}
            error = &mut gone => {
                printer.error(&error);
                lost = Some(anyhow!("the machine has ended"));
            }
        }
    }
    // Once it has said that the machine is gone, it has nothing more to say.
    let fetched = match lost {
        None => tokio::select! {
            biased;
            fetched = artifacts::fetch(service, &settings.artifacts, &mut ledger, printer) => fetched,
            error = gone => Err(error.context("the artifacts were not fetched")),
            // A guest that sends a byte now and then is never stalled.
            () = tokio::time::sleep(settings.bounds.farewell) => {
                let farewell = humantime::format_duration(settings.bounds.farewell);
                let late = "the artifacts were not fetched within";
                Err(anyhow!("{late} {farewell}: more by --limit artifact-timeout=DURATION"))
            }
        },
        Some(_) if settings.artifacts.is_empty() => Ok(()),
        Some(error) => Err(error.context("the artifacts were not fetched")),
    };
    let complete = service.shutdown().await.context("the log is not complete");
    if matches!(end, End::TimedOut(_) | End::Interrupted(_)) {
        // They do not change the status.
        [&fetched, &complete].into_iter().filter_map(|r| r.as_ref().err()).for_each(|error| {
            printer.error(error);
        });
    }
    let status =
        match end {
            End::LogFailed(_) if unread(&end) => ExitStatus::UNREAD,
            End::LogFailed(_) => ExitStatus::FAILED,
            End::Interrupted(interrupt) => ExitStatus::signal(interrupt.number),
            End::TimedOut(_) => ExitStatus::TIMED_OUT,
            End::Result(result) => match (report(printer, &result), fetched.and(complete)) {
                (status, Ok(())) => status,
                (status, Err(error)) if output::is_closed(&error) => {
                    if status == ExitStatus::SUCCESS { ExitStatus::UNREAD } else { status }
                }
                (status, Err(error)) => {
                    printer.error(&error);
                    if status == ExitStatus::SUCCESS { ExitStatus::FAILED } else { status }
                }
            },
        };
    ledger.ended(status)?;
    Ok(status)
}

async fn run(
    service: &MetaService,
    settings: &JobSettings,
    printer: Printer,
    interrupts: &mut Interrupts,
    boot: impl Future<Output = Error>,
    known: impl Fn() -> String,
) -> Result<End> {
    let spinner = printer.spinner("waiting for the guest");
    let mut telling = pin!(contact::tell(service, printer, known));
    tokio::select! {
        () = service.fetched() => {}
        never = &mut telling => match never {},
        // A guest may know its command already; what it reports counts.
        result = service.result() => return Ok(End::Result(result)),
        error = boot => return Err(error),
        interrupt = interrupts.next() => return Ok(End::Interrupted(interrupt)),
    }
    drop(spinner);
    printer.event("started", json!({ "job": settings.name }));
    let late = async {
        match settings.timeout {
            Some(timeout) => {
                let begun = service.fetched_at().and_then(|begun| begun.elapsed().ok());
                tokio::time::sleep(timeout.saturating_sub(begun.unwrap_or_default())).await;
            }
            None => std::future::pending().await,
        }
    };
    Ok(tokio::select! {
        biased;
        result = service.result() => End::Result(result),
        never = telling => match never {},
        error = service.log_failed() => End::LogFailed(error),
        interrupt = interrupts.next() => End::Interrupted(interrupt),
        () = late => End::TimedOut(settings.timeout.unwrap_or_default()),
    })
}

fn announce(printer: Printer, end: &End) {
    match end {
        End::Result(_) => {}
        End::TimedOut(timeout) => {
            let timeout = humantime::format_duration(*timeout);
            printer.note(&format!("the command is killed: --timeout of {timeout} has passed"));
            printer.event("timeout", json!({}));
        }
        End::Interrupted(interrupt) => {
            let name = interrupt.name;
            printer.note(&format!("{name}: the command is killed (once more to stop at once)"));
            printer.event("interrupted", json!({ "signal": name }));
        }
        End::LogFailed(_) if unread(end) => {}
        End::LogFailed(error) => {
            let error = Error::new(error.clone()).context("the command is killed");
            printer.error(&error);
        }
    }
}

/// Asks the guest to kill the command and waits for its report, within bounds.
async fn kill(service: &MetaService, late: bool, printer: Printer) {
    let killed = async {
        let spinner = printer.spinner("killing the command");
        // Killed is killed; why is what the guest reports.
        if late {
            service.time_out().await?;
        } else {
            service.kill_process().await?;
        }
        service.result().await;
        drop(spinner);
        anyhow::Ok(())
    };
    match tokio::time::timeout(KILL_PATIENCE, killed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => printer.error(&error.context("the guest did not kill the command")),
        Err(_) => printer.note("the guest has not reported the command's end"),
    }
}

/// As many connections as there are descriptors for, with some to spare for all else.
fn within_descriptors(mut bounds: Bounds) -> Bounds {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    bounds.connections = bounds.connections.min(most.saturating_sub(SPARE_DESCRIPTORS).max(16));
    bounds
}

fn report(printer: Printer, result: &JobResult) -> ExitStatus {
    // A service before this one may have stopped it.
    let reason = result.ending.as_ref().map(|ending| ending.reason);
    let late = !result.success && reason == Some(Reason::TimedOut);
    let status = if late { ExitStatus::TIMED_OUT } else { ExitStatus(result.status()) };
    let details = json!({ "success": result.success, "status": status.0, "ending": result.ending });
    printer.event("ended", details);
    for remark in result.ending.iter().flat_map(remarks::on) {
        printer.note(&remark);
    }
    status
}
