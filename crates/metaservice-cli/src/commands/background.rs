//! `metaservice run -d`: a job in the background, in a process of its own.
//!
//! ```text
//!   run -d ── description, secrets ──► background: a session of its own, in "/"
//!      ▲                                   │ errors go to the stderr of `run -d`
//!      ├───────── name of the job ─────────┤ the guest has fetched the command
//!      ▼                                   ▼ messages go to the directory of the job
//!   prints it, exits with 0            serves the job to its end
//! ```
//!
//! Both ends talk over a socket, which is stdin of the new process. Secrets are in no environment.
//! If the process ends without a name, its exit status is that of `run -d`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::process::{Child, Command, ExitStatus as ProcessStatus, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use metaservice_sandbox::Launcher;
use metaservice_sandbox::history::{self, MESSAGES};
use metaservice_sandbox::machine::is_name;
use metaservice_sandbox::spec::JobSpec;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::planned;
use crate::description::Description;
use crate::hints;
use crate::interrupts::Interrupts;
use crate::output::events::{self, JobFacts};
use crate::output::printer::Printer;
use crate::output::{self, stderr};
use crate::status::ExitStatus;
use crate::terminal::owner::OwnerInput;

/// Run a job that standard input describes: for "run --detach".
#[derive(Debug, Args)]
pub(crate) struct Background {}

/// What the new process gets.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    spec: JobSpec,
    secrets: BTreeMap<String, String>,
    /// Whether the job is kept when it has ended.
    keep: bool,
}

/// Starts a job in the background, and prints its name when its command has started.
pub(super) async fn start(
    description: Description,
    keep: bool,
    printer: Printer,
) -> Result<ExitStatus> {
    let mut interrupts = Interrupts::listen()?;
    let directory = std::env::current_dir().context("the working directory is gone")?;
    let (spec, secrets) = description.into_parts();
    let spec = tokio::task::block_in_place(|| spec.absolute(&directory, is_name));
    let handed = serde_json::to_vec(&Handed { spec, secrets, keep })?;
    let (child, socket) = spawn(printer).context("cannot start a process for the job")?;
    let pid = Pid::from_child(&child);
    let mut ended = end_of(child);
    let name = tokio::task::spawn_blocking(move || talk(socket, &handed));
    tokio::pin!(name);
    loop {
        tokio::select! {
            name = &mut name => match name?.filter(|name| !name.is_empty()) {
                Some(name) => {
                    output::line(name)?;
                    return Ok(ExitStatus::SUCCESS);
                }
                None => break,
            },
            interrupt = interrupts.next() => end(pid, interrupt.number),
        }
    }
    // It has printed the error.
    loop {
        tokio::select! {
            status = &mut ended => return Ok(status_of(status??, interrupts.last())),
            interrupt = interrupts.next() => end(pid, interrupt.number),
        }
    }
}

/// Starts the process. It has no descriptor of this one but stderr.
fn spawn(printer: Printer) -> io::Result<(Child, UnixStream)> {
    let (here, there) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    if printer.is_json() {
        command.arg("--json");
    }
    if printer.is_quiet() {
        command.arg("--quiet");
    }
    command
        .arg("background")
        .stdin(OwnedFd::from(there))
        .stdout(Stdio::null())
        // It keeps no directory in use.
        .current_dir("/");
    metaservice_qemu::without_descriptors(&mut command);
    Ok((command.spawn()?, here))
}

fn end_of(mut child: Child) -> JoinHandle<io::Result<ProcessStatus>> {
    tokio::task::spawn_blocking(move || child.wait())
}

/// Hands the description over, and waits for the name of the job. `None`: the process has ended.
fn talk(mut socket: UnixStream, handed: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut talk = || {
        socket.write_all(handed)?;
        socket.shutdown(std::net::Shutdown::Write)?;
        socket.read_to_string(&mut name)
    };
    talk().ok().map(|_| name)
}

/// Passes a signal on. The job has not started: nothing of it is left.
fn end(process: Pid, signal: u8) {
    let signal = Signal::from_named_raw(i32::from(signal)).unwrap_or(Signal::TERM);
    // It may have just ended.
    let _ = kill_process(process, signal);
}

fn status_of(ended: ProcessStatus, interrupt: Option<crate::interrupts::Interrupt>) -> ExitStatus {
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    match (interrupt, code) {
        (Some(interrupt), _) => ExitStatus::signal(interrupt.number),
        (None, Some(code)) if code != 0 => ExitStatus(code),
        (None, _) => ExitStatus::FAILED,
    }
}

/// Runs the job that stdin describes.
pub(super) async fn background(printer: Printer) -> Result<ExitStatus> {
    // The signals of the terminal are for `run -d`, and so is its end.
    rustix::process::setsid().context("cannot leave the terminal")?;
    let mut handed = Vec::new();
    tokio::task::block_in_place(|| io::stdin().read_to_end(&mut handed))?;
    let Handed { spec, secrets, keep } =
        serde_json::from_slice(&handed).context("this verb is for \"metaservice run --detach\"")?;
    let (job, plan) = planned::plan(Description::new(spec, secrets))?;
    let mut interrupts = Interrupts::listen()?;
    let facts = JobFacts::of(&job, Some(plan.boot_timeout()), None);
    let summary = plan.summary();
    let launching = Launcher::new(job).history(keep).findable().launch(plan);
    let sandbox = tokio::select! {
        launched = launching => launched.map_err(hints::launch)?,
        interrupt = interrupts.next() => return Ok(ExitStatus::signal(interrupt.number)),
    };
    let name = sandbox.name().to_owned();
    let mut starting = pin!(sandbox.command_started());
    let mut following =
        pin!(events::follow(sandbox, &mut interrupts, &facts, OwnerInput::default(), printer));
    let (report, has_started) = tokio::select! {
        biased;
        started = &mut starting => {
            if started {
                leave_terminal(&name);
            }
            (following.await, started)
        }
        report = &mut following => (report, false),
    };
    // In the foreground, the log says why.
    let ending = report.result.as_ref().and_then(|result| result.ending.as_ref());
    if let Some(why) = ending.and_then(hints::not_run).filter(|_| !has_started) {
        printer.error(&why);
    }
    let wants_snapshot = report.wants_snapshot;
    let status = events::conclude(report, &facts, printer)?;
    if wants_snapshot {
        planned::make_snapshot_later(&summary);
    }
    Ok(status)
}

/// Sends later messages to the directory of the job, and says its name to `run -d`.
fn leave_terminal(name: &str) {
    stderr::drain();
    let messages = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(history::place().join(name).join(MESSAGES));
    let null = || File::options().read(true).write(true).open("/dev/null");
    // If there is no space for messages, they are lost.
    if let Ok(messages) = messages.or_else(|_| null()) {
        let _ = rustix::stdio::dup2_stderr(messages.as_fd());
    }
    // `run -d` may be gone: the job does not depend on it.
    let _ = rustix::io::write(rustix::stdio::stdin(), name.as_bytes());
    if let Ok(null) = null() {
        let _ = rustix::stdio::dup2_stdin(null.as_fd());
    }
}
