//! One running machine, from start to exit.
//!
//! Owns the order of things: descriptors, process, monitor, the watch over all three, and the
//! ladder by which a machine is ended. What is said over the monitor is [`qmp`](crate::qmp)'s,
//! how an end is judged is [`exit`](crate::machine::exit)'s.
//!
//! ```text
//!   Machine::start                pause                      the process has ended,
//!        │                     ┌──────────► paused ──┐       however it came to it
//!        ▼                     │ ◄──────────┘ resume │
//!    starting ─── greeted ─► running                 ├──────────────► exited
//!        │                     │     power_down      │                  ▲
//!        │                     └──────────► powering │                  │
//!        │                                    down ──┘                  │
//!        └─ QEMU ends, or does not greet in time: StartError            │
//!                                                                       │
//!    power_down: power button ─ grace ─► quit ─ 2 s ─► SIGKILL ─────────┘
//! ```
//!
//! - *starting* is the future of [`Machine::start`]; nobody holds a machine in this state.
//! - *running* and *paused* follow QEMU's events, whoever asked for the change.
//! - *powering down* begins with the power button and is never left but for *exited*.
//! - *exited* is final, reached once the process is reaped and all that it said is read.

pub(crate) mod console;
pub(crate) mod exit;
pub(crate) mod out_of_memory;
pub(crate) mod process;
pub(crate) mod scratch;
pub(crate) mod state;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_private::lock;

use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::command_line::{self, Inherited};
use crate::confine::{Boundary, ConfineError, Confinement, Needs};
use crate::machine::console::{Console, ConsoleLog};
use crate::machine::exit::{Evidence, Exit, ExitCause};
use crate::machine::out_of_memory::Kills;
use crate::machine::process::{Killer, Process};
use crate::machine::state::StateError;
use crate::qmp::{Event, Monitor, QmpError};
use crate::spec::accelerator::AcceleratorChoice;
use crate::spec::hardware::Memory;
use crate::spec::{InvalidSpec, MachineSpec, SnapshotUse};

/// What QEMU gets of our environment: where programs, libraries and temporary files are. Anything
/// else may be a secret, and a guest that has broken into QEMU would read it there.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR"];

/// How long QEMU may take until its monitor answers. It takes some 100 ms; a host that is
/// short of memory or time may need far longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the power button is pressed: a guest that is still booting misses a press.
const PRESS_INTERVAL: Duration = Duration::from_secs(2);

/// How long QEMU may take to end by itself when it is told to.
const QUIT_GRACE: Duration = Duration::from_secs(2);

/// How long the ends of the console and the monitor may take once QEMU is gone.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Console lines that are searched for a panic.
const PANIC_LINES: usize = 400;

/// A machine that could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The description is at fault.
    #[error("the machine cannot be started as described")]
    Spec(#[from] InvalidSpec),
    /// QEMU cannot be kept to what it needs, or cannot be started at all.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The host has no process, thread or descriptor to give.
    #[error("cannot start QEMU")]
    Process(#[source] io::Error),
    /// The host does not give that much memory.
    #[error("the host does not have {0} of memory for the machine")]
    NoMemory(Memory),
    /// Another process has the port of the host that was to lead to the guest.
    #[error("port {port} of the host cannot be published: another process listens there")]
    PortTaken {
        /// `ADDRESS:PORT`.
        port: String,
    },
    /// QEMU ended before it ran the machine.
    #[error("QEMU did not start the machine: {stderr}")]
    Ended {
        /// What QEMU said; fit to be shown.
        stderr: String,
    },
    /// The snapshot cannot be restored. QEMU has been killed.
    #[error("the machine cannot be restored from its snapshot")]
    Restore(#[source] StateError),
    /// QEMU runs and does not answer. It has been killed.
    #[error("QEMU did not answer in time: {stderr}")]
    Silent {
        /// What QEMU said; fit to be shown.
        stderr: String,
    },
}

/// What QEMU's words for the causes that a user can mend mean.
fn refused(stderr: String, memory: Memory) -> StartError {
    if stderr.contains("cannot set up guest memory") {
        return StartError::NoMemory(memory);
    }
    let rule = stderr.split_once("Could not set up host forwarding rule '").map(|(_, rule)| rule);
    // tcp:127.0.0.1:8080-:80
    let port = rule.and_then(|rule| rule.split_once(':')?.1.split_once('-'));
    match port {
        Some((port, _)) => StartError::PortTaken { port: port.to_owned() },
        None => StartError::Ended { stderr },
    }
}

/// A command to a machine that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommandFailed(#[from] QmpError);

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    /// Its processors run.
    Running,
    /// Its processors stand still.
    Paused,
    /// It has been asked to end.
    PoweringDown,
    /// It has ended.
    Exited,
}

/// What events have told, for the verdict at the end.
#[derive(Debug, Default)]
struct Observed {
    shutdown: Option<String>,
    panicked: bool,
    no_room: bool,
}

/// How far QEMU is with saving or loading a state, in its own word.
pub(crate) type Migration = watch::Sender<String>;

/// A running machine. Dropping it kills it at once.
///
/// See [the crate's example](crate) for how one is started.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    pub(crate) monitor: Monitor,
    pub(crate) migration: Migration,
    console: Console,
    accelerator: AcceleratorChoice,
    killed: Arc<AtomicBool>,
    state: watch::Sender<MachineState>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Machine {
    /// Starts QEMU and returns when it runs the machine, some 100 ms later. Must be called
    /// within a tokio runtime with I/O and time. Dropping the future kills what was started.
    ///
    /// # Errors
    /// When the description is at fault, or QEMU does not start, with what it said.
    pub async fn start(mut spec: MachineSpec) -> Result<Self, StartError> {
        let accelerator = spec.accelerator.choose().map_err(InvalidSpec::from)?;
        let (monitor, qemu_monitor) =
            std::os::unix::net::UnixStream::pair().map_err(StartError::Process)?;
        let (console, qemu_console) =
            std::os::unix::net::UnixStream::pair().map_err(StartError::Process)?;
        let kills = Kills::now();
        let scratch = scratch::of(&spec).map_err(StartError::Process)?;
        let needs = Needs::of(&spec, &accelerator, scratch.folder())?;
        let program = needs.program.clone();
        let boundary = spec.boundary;
        let confine = move || Confinement::of(&needs, boundary.unwrap_or_else(Boundary::of_host));
        let mut confinement = blocking(confine).await.map_err(StartError::Process)??;
        let inherited = Inherited {
            monitor: qemu_monitor.as_raw_fd(),
            console: qemu_console.as_raw_fd(),
            card: spec.card.as_ref().map(|card| card.stream.as_raw_fd()),
            scratch: scratch.number(),
            export: confinement.export(),
        };
        let words = command_line::qemu(&spec, &accelerator, inherited)?;
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
        let console = Console::read(console, log).map_err(StartError::Process)?;

        let observed = Arc::new(Mutex::new(Observed::default()));
        let state = watch::Sender::new(MachineState::Running);
        monitor.set_nonblocking(true).map_err(StartError::Process)?;
        let stream = UnixStream::from_std(monitor).map_err(StartError::Process)?;
        let migration = Migration::default();
        let no_room = Arc::new(Notify::new());
        let observe =
            observe(Arc::clone(&observed), state.clone(), migration.clone(), Arc::clone(&no_room));
        let (monitor, monitor_end) = Monitor::new(stream, observe);
        let greeted = tokio::select! {
            biased;
            _ = process.ended() => return Err(refused(process.stderr().shown(), spec.memory)),
            greeted = monitor.greet(START_TIMEOUT) => greeted,
        };
        match greeted {
            Ok(()) => {}
            // The monitor closes a moment before the process has ended.
            Err(QmpError::Closed | QmpError::Write(_)) => {
                let _ = timeout(QUIT_GRACE, process.ended()).await;
                return Err(refused(process.stderr().shown(), spec.memory));
            }
            Err(_) => return Err(StartError::Silent { stderr: process.stderr().shown() }),
        }

        let killed = Arc::new(AtomicBool::new(false));
        let (end, exit) = watch::channel(None);
        let attendance = Attendance {
            ended: process.ended(),
            stderr: process.stderr(),
            console: console.clone(),
            monitor_end,
            observed,
            killed: Arc::clone(&killed),
            killer: process.killer().map_err(StartError::Process)?,
            kills,
        };
        let exited = state.clone();
        tokio::spawn(async move {
            if let Some(outcome) = attendance.wait(no_room).await {
                tracing::debug!(cause = %outcome.cause, "exited");
                end.send_replace(Some(outcome));
                exited.send_replace(MachineState::Exited);
            }
        });
        let machine =
            Self { process, monitor, migration, console, accelerator, killed, state, exit };
        if let Some(SnapshotUse::Restore(_, state)) = spec.snapshot.take() {
            machine.load_state(state).await.map_err(StartError::Restore)?;
        }
        Ok(machine)
    }

    /// The console, readable during and after the machine's life.
    #[must_use]
    pub fn console(&self) -> Console {
        self.console.clone()
    }

    /// What the machine runs on, and why.
    #[must_use]
    pub const fn accelerator(&self) -> &AcceleratorChoice {
        &self.accelerator
    }

    /// The number of QEMU's process.
    #[must_use]
    pub const fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The state now, and every change of it.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<MachineState> {
        self.state.subscribe()
    }

    /// Waits for the machine's end. Cancel-safe; any number may wait, and later calls give the
    /// same answer.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            // The watching task is gone only with its runtime, and then nobody waits; were it
            // otherwise, an end that cannot be known is none.
            _ => std::future::pending().await,
        }
    }

    /// What QEMU says of the machine: `running`, `paused`, `shutdown`, ...
    ///
    /// # Errors
    /// When QEMU does not answer within 10 s or is gone.
    pub async fn status(&self) -> Result<String, CommandFailed> {
        let status = self.monitor.execute("query-status").await?;
        Ok(status.get("status").and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned())
    }

    /// Stops the processors.
    ///
    /// # Errors
    /// When QEMU does not answer within 10 s or is gone.
    pub async fn pause(&self) -> Result<(), CommandFailed> {
        Ok(self.monitor.execute("stop").await.map(drop)?)
    }

    /// Lets the processors run again.
    ///
    /// # Errors
    /// When QEMU does not answer within 10 s or is gone.
    pub async fn resume(&self) -> Result<(), CommandFailed> {
        Ok(self.monitor.execute("cont").await.map(drop)?)
    }

    /// Ends the machine in order: presses its power button, again every 2 s, and gives the
    /// guest `grace` to act on it; then tells QEMU to quit; then kills it. Takes at most
    /// `grace` and some 2 s. A dropped future leaves the machine where it is on this way.
    pub async fn power_down(&self, grace: Duration) -> Exit {
        let deadline = Instant::now() + grace;
        let paused = *self.state.borrow() == MachineState::Paused;
        set_unless_final(&self.state, MachineState::PoweringDown);
        if paused {
            // Who stands still does not hear the button.
            let _ = timeout(grace, self.resume()).await;
        }
        loop {
            let press = async {
                if let Err(error) = self.monitor.execute("system_powerdown").await {
                    tracing::debug!(%error, "the power button was not pressed");
                }
                sleep(PRESS_INTERVAL).await;
            };
            tokio::select! {
                biased;
                exit = self.wait() => return exit,
                () = sleep_until(deadline) => break,
                () = press => {}
            }
        }
        tracing::debug!("the guest did not power off in time");
        self.killed.store(true, Ordering::Relaxed);
        let quit = async {
            let _ = self.monitor.execute("quit").await;
            self.wait().await
        };
        match timeout(QUIT_GRACE, quit).await {
            Ok(exit) => exit,
            Err(_) => self.kill().await,
        }
    }

    /// Ends the machine at once and waits until nothing of it is left. It works on a QEMU that
    /// is frozen, too. A dropped future has killed the machine.
    pub async fn kill(&self) -> Exit {
        self.killed.store(true, Ordering::Relaxed);
        self.process.kill();
        self.wait().await
    }
}

/// What the watching task holds: everything that it needs to judge the end, and nothing that
/// would keep a dropped machine alive.
struct Attendance<E> {
    ended: E,
    stderr: crate::machine::process::Stderr,
    console: Console,
    monitor_end: JoinHandle<()>,
    observed: Arc<Mutex<Observed>>,
    killed: Arc<AtomicBool>,
    killer: Killer,
    /// How often this host had killed for memory when the machine was started.
    kills: Kills,
}

impl<E: Future<Output = Option<std::process::ExitStatus>>> Attendance<E> {
    async fn wait(self, no_room: Arc<Notify>) -> Option<Exit> {
        let mut ended = pin!(self.ended);
        let status = tokio::select! {
            status = &mut ended => status,
            () = no_room.notified() => {
                self.killer.kill();
                ended.await
            }
        }?;
        // What QEMU said last may still be on its way to us.
        let drained = async {
            self.console.ended().await;
            let _ = self.monitor_end.await;
        };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("QEMU is gone, and its console or monitor does not end");
        }
        let observed = std::mem::take(&mut *lock(&self.observed));
        let evidence = Evidence {
            shutdown: observed.shutdown,
            panicked: observed.panicked,
            no_room: observed.no_room,
            killed: self.killed.load(Ordering::Relaxed),
            console: self.console.tail(PANIC_LINES),
            stderr: self.stderr.shown(),
            signal: status.signal(),
            out_of_memory: Kills::now().since(self.kills),
        };
        let cause: ExitCause = evidence.verdict();
        Some(Exit { cause, status })
    }
}

/// Does what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Notes what events tell.
fn observe(
    observed: Arc<Mutex<Observed>>,
    state: watch::Sender<MachineState>,
    migration: Migration,
    no_room: Arc<Notify>,
) -> impl FnMut(Event) + Send {
    move |event| match event.name.as_str() {
        "STOP" => set_unless_final(&state, MachineState::Paused),
        "RESUME" => set_unless_final(&state, MachineState::Running),
        "MIGRATION" => {
            migration.send_replace(event.text("status").unwrap_or_default().to_owned());
        }
        // QEMU stops the machine then, and would do so for ever.
        "BLOCK_IO_ERROR" if event.flag("nospace") => {
            lock(&observed).no_room = true;
            no_room.notify_one();
        }
        "GUEST_PANICKED" => lock(&observed).panicked = true,
        "SHUTDOWN" => {
            let reason = event.text("reason").unwrap_or("unknown").to_owned();
            // The first reason is the cause, later ones its consequences.
            lock(&observed).shutdown.get_or_insert(reason);
        }
        _ => {}
    }
}

/// Changes the state, but never back from the way down.
fn set_unless_final(state: &watch::Sender<MachineState>, next: MachineState) {
    state.send_if_modified(|state| {
        let change =
            matches!(*state, MachineState::Running | MachineState::Paused) && *state != next;
        if change {
            *state = next;
        }
        change
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_user_can_mend_is_told_without_the_words_of_qemu() {
        let told = |stderr: &str| refused(stderr.to_owned(), Memory::DEFAULT).to_string();
        let memory = "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory";
        assert_eq!(told(memory), "the host does not have 1 GiB of memory for the machine");
        let port =
            "qemu: -netdev user,id=u: Could not set up host forwarding rule 'tcp:127.0.0.1:80-:8'";
        assert!(told(port).starts_with("port 127.0.0.1:80 of the host cannot be published"));
        let other = "qemu: Could not set up host forwarding rule ''";
        assert!(told(other).contains(other));
    }

    #[test]
    fn events_become_states_and_evidence() {
        let observed = Arc::new(Mutex::new(Observed::default()));
        let state = watch::Sender::new(MachineState::Running);
        let migration = Migration::default();
        let no_room = Arc::new(Notify::new());
        let mut observe = observe(Arc::clone(&observed), state.clone(), migration.clone(), no_room);
        let event = |name: &str, data| Event { name: name.into(), data };
        observe(event("STOP", json!(null)));
        assert_eq!(*state.borrow(), MachineState::Paused);
        observe(event("RESUME", json!(null)));
        assert_eq!(*state.borrow(), MachineState::Running);
        observe(event("SHUTDOWN", json!({"guest": true, "reason": "guest-reset"})));
        observe(event("SHUTDOWN", json!({"guest": false, "reason": "host-signal"})));
        assert_eq!(observed.lock().unwrap().shutdown.as_deref(), Some("guest-reset"));
        observe(event("MIGRATION", json!({"status": "completed"})));
        assert_eq!(*migration.borrow(), "completed");
        observe(event("BLOCK_IO_ERROR", json!({"nospace": false, "action": "report"})));
        assert!(!observed.lock().unwrap().no_room);
        observe(event("BLOCK_IO_ERROR", json!({"nospace": true, "action": "stop"})));
        assert!(observed.lock().unwrap().no_room);
        observe(event("GUEST_PANICKED", json!({"action": "poweroff"})));
        assert!(observed.lock().unwrap().panicked);
    }

    #[test]
    fn nothing_leads_back_from_the_way_down() {
        let state = watch::Sender::new(MachineState::Running);
        set_unless_final(&state, MachineState::PoweringDown);
        set_unless_final(&state, MachineState::Running);
        assert_eq!(*state.borrow(), MachineState::PoweringDown);
        state.send_replace(MachineState::Exited);
        set_unless_final(&state, MachineState::PoweringDown);
        assert_eq!(*state.borrow(), MachineState::Exited);
    }
}
