//! The start of a machine: descriptors, confinement, process, console, monitor, in this order.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cgroup::{self, CgroupError};
use super::console::{Console, ConsoleLog};
use super::events::Observer;
use super::life::MachineState;
use super::out_of_memory::Kills;
use super::process::Process;
use super::scratch;
use super::state::StateError;
use super::watcher::Watcher;
use super::{Machine, QUIT_TIMEOUT};
use crate::command_line::{self, Inherited};
use crate::confine::confinement::Confinement;
use crate::confine::error::ConfineError;
use crate::confine::needs::Needs;
use crate::qmp::{Monitor, QmpError};
use crate::spec::MachineSpec;
use crate::spec::accelerator::AcceleratorChoice;
use crate::spec::boundary::Boundary;
use crate::spec::error::InvalidSpec;
use crate::spec::hardware::Memory;
use crate::spec::snapshot::SnapshotUse;

/// The environment variables that QEMU gets: where programs, libraries and temporary files are.
/// All others may be secrets, and a guest that has broken into QEMU could read them.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR"];

/// How long QEMU may take until its monitor answers. It takes about 100 ms. On a host that is short
/// of memory or time it may take far longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A machine that could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The description is invalid.
    #[error("the machine cannot be started as described")]
    Spec(#[from] InvalidSpec),
    /// QEMU cannot be confined, or cannot be started at all.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The host has no process, thread or descriptor left.
    #[error("cannot start QEMU")]
    Process(#[source] io::Error),
    /// QEMU cannot join its cgroup. It has been killed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The host does not have that much memory.
    #[error("the host does not have {0} of memory for the machine")]
    NoMemory(Memory),
    /// QEMU ended before it ran the machine.
    #[error("QEMU did not start the machine: {stderr}")]
    Ended {
        /// QEMU's messages, sanitized.
        stderr: String,
    },
    /// The snapshot cannot be restored. QEMU has been killed.
    #[error("the machine cannot be restored from its snapshot")]
    Restore(#[source] StateError),
    /// QEMU runs, but its monitor does not answer. QEMU has been killed.
    #[error("QEMU did not answer in time: {stderr}")]
    Silent {
        /// QEMU's messages, sanitized.
        stderr: String,
    },
}

/// The error for a QEMU that has ended. For causes that the user can change, it is a variant of its
/// own.
fn ended(stderr: String, memory: Memory) -> StartError {
    if stderr.contains("cannot set up guest memory") {
        return StartError::NoMemory(memory);
    }
    StartError::Ended { stderr }
}

/// QEMU, with the host's ends of its sockets.
struct Started {
    process: Process,
    console: Console,
    monitor: StdStream,
}

impl Machine {
    /// Starts QEMU, and returns when it runs the machine, after about 100 ms. If the description
    /// has a snapshot, the machine is restored from it.
    ///
    /// Must be called within a tokio runtime with I/O and time. If the future is dropped, QEMU is
    /// killed.
    ///
    /// # Errors
    /// If the description is invalid, or QEMU does not start.
    pub async fn start(mut spec: MachineSpec) -> Result<Self, StartError> {
        let accelerator = spec.accelerator.choose(spec.qemu.arch).map_err(InvalidSpec::from)?;
        let kills = Kills::now();
        let Started { process, console, monitor } = start_process(&mut spec, &accelerator).await?;
        let observer = Observer::new();
        let (monitor, monitor_end) = connect(monitor, &observer).map_err(StartError::Process)?;
        greet(&monitor, &process, spec.memory).await?;

        let killed = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            ended: process.ended(),
            stderr: process.stderr(),
            console: console.clone(),
            monitor_end,
            observer: observer.clone(),
            killed: Arc::clone(&killed),
            killer: process.killer().map_err(StartError::Process)?,
            kills,
        };
        let (end, exit) = watch::channel(None);
        let (state, migration) = (observer.state.clone(), observer.migration);
        // The task ends with QEMU, which a dropped machine kills.
        tokio::spawn(async move {
            if let Some(exit) = watcher.wait().await {
                tracing::debug!(cause = %exit.cause, "exited");
                end.send_replace(Some(exit));
                observer.state.send_replace(MachineState::Exited);
            }
        });
        let machine =
            Self { process, monitor, migration, console, accelerator, killed, state, exit };
        if let Some(SnapshotUse::Restore(_, state)) = spec.snapshot.take() {
            machine.load_state(state).await.map_err(StartError::Restore)?;
        }
        Ok(machine)
    }
}

async fn start_process(
    spec: &mut MachineSpec,
    accelerator: &AcceleratorChoice,
) -> Result<Started, StartError> {
    let (monitor, qemu_monitor) = StdStream::pair().map_err(StartError::Process)?;
    let (console, qemu_console) = StdStream::pair().map_err(StartError::Process)?;
    let scratch = scratch::of(spec).map_err(StartError::Process)?;
    let needs = Needs::of(spec, accelerator, scratch.directory())?;
    let program = needs.program.clone();
    let boundary = spec.boundary;
    let confine = move || Confinement::of(&needs, boundary.unwrap_or_else(Boundary::of_host));
    let mut confinement = blocking(confine).await.map_err(StartError::Process)??;
    let inherited = Inherited {
        monitor: qemu_monitor.as_raw_fd(),
        console: qemu_console.as_raw_fd(),
        card: spec.card.as_ref().map(|card| card.stream.as_raw_fd()),
        scratch: scratch.number(),
        exports: confinement.exports(),
    };
    let words = command_line::qemu(spec, accelerator, inherited)?;
    let log = spec.console_log.take().map(|file| ConsoleLog::new(file, spec.console_limit));

    tracing::debug!(qemu = %program.display(), arguments = ?words, "starting");
    let mut command = Command::new(&program);
    command.args(words).env_clear().envs(environment());
    if let Some(scratch) = &spec.scratch {
        command.env("TMPDIR", scratch);
    }
    let mut kept: Vec<OwnedFd> = vec![qemu_monitor.into(), qemu_console.into()];
    kept.extend(spec.card.take().map(|card| card.stream));
    kept.extend(scratch.into_descriptor());
    kept.extend(confinement.take_descriptors());
    let process = Process::start(command, kept, confinement).await?;
    if let Some(directory) = &spec.cgroup {
        cgroup::join(directory, process.id()).await?;
    }
    let console = Console::read(console, log).map_err(StartError::Process)?;
    Ok(Started { process, console, monitor })
}

fn connect(monitor: StdStream, observer: &Observer) -> io::Result<(Monitor, JoinHandle<()>)> {
    monitor.set_nonblocking(true)?;
    let observer = observer.clone();
    Ok(Monitor::new(UnixStream::from_std(monitor)?, move |event| observer.observe(&event)))
}

async fn greet(monitor: &Monitor, process: &Process, memory: Memory) -> Result<(), StartError> {
    let greeted = tokio::select! {
        biased;
        _ = process.ended() => return Err(ended(process.stderr().shown(), memory)),
        greeted = monitor.greet(START_TIMEOUT) => greeted,
    };
    match greeted {
        Ok(()) => Ok(()),
        // The monitor closes shortly before the process has ended.
        Err(QmpError::Closed | QmpError::Write(_)) => {
            let _ = timeout(QUIT_TIMEOUT, process.ended()).await;
            Err(ended(process.stderr().shown(), memory))
        }
        Err(_) => Err(StartError::Silent { stderr: process.stderr().shown() }),
    }
}

/// Runs blocking work on another thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_a_user_can_change_have_errors_of_their_own() {
        let error = |stderr: &str| ended(stderr.to_owned(), Memory::DEFAULT).to_string();
        let memory = "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory";
        assert_eq!(error(memory), "the host does not have 1 GiB of memory for the machine");
        let other = "qemu: Could not set up something";
        assert!(error(other).contains(other));
    }
}
