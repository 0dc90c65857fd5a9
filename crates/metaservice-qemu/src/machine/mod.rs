//! One running machine, from its start to its exit.
//!
//! Owns the order of things, and the steps by which a machine is ended.
//!
//! ```text
//!   Machine::start                pause                      the process has ended,
//!        │                     ┌──────────► paused ──┐       for any reason
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
//! - *starting* is the future of [`Machine::start`]. There is no machine value in this state.
//! - *running* and *paused* follow QEMU's events, whatever requested the change.
//! - *powering down* begins with the power button. Only *exited* follows it.
//! - *exited* is final. It is reached when the process is reaped and all its output is read.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `start`, `process` | the start of QEMU, and its process |
//! | `watcher`, `events`, `life` | the end, the meaning of QEMU's events, the state |
//! | `exit`, `out_of_memory` | the verdict on the end |
//! | `console`, `sanitize` | the serial console, fit for a terminal |
//! | `state` | the state of processors and devices |
//! | `cgroup` | the cgroup that QEMU joins |
//! | `scratch` | where the guest's writes to the disk go |

pub(crate) mod cgroup;
pub(crate) mod console;
mod events;
pub(crate) mod exit;
pub(crate) mod life;
pub(crate) mod out_of_memory;
pub(crate) mod process;
mod sanitize;
mod scratch;
pub(crate) mod start;
pub(crate) mod state;
mod watcher;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::cgroup::CgroupError;
use self::console::Console;
use self::exit::Exit;
use self::life::{MachineState, advance};
use self::process::Process;
use self::state::{StateError, Transfer};
use crate::qmp::{Monitor, QmpError};
use crate::spec::accelerator::AcceleratorChoice;

/// How often the power button is pressed: a guest that is still booting misses a press.
const PRESS_INTERVAL: Duration = Duration::from_secs(2);

/// How long QEMU may take to end after the command to quit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A command to a machine that failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommandFailed(#[from] QmpError);

/// A running machine. Dropped, it is killed at once.
///
/// The [example of the crate](crate) shows how to start one.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    monitor: Monitor,
    migration: watch::Sender<String>,
    console: Console,
    accelerator: AcceleratorChoice,
    killed: Arc<AtomicBool>,
    state: watch::Sender<MachineState>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Machine {
    /// The console, which stays readable after the machine's end.
    #[must_use]
    pub fn console(&self) -> Console {
        self.console.clone()
    }

    /// The accelerator, and the reason for it.
    #[must_use]
    pub const fn accelerator(&self) -> &AcceleratorChoice {
        &self.accelerator
    }

    /// QEMU's process id.
    #[must_use]
    pub const fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Moves QEMU to a cgroup (v2), from any other. It has no effect after the end of the machine.
    ///
    /// Takes some milliseconds. If the future is dropped, QEMU may join the group nevertheless.
    ///
    /// # Errors
    /// If the directory is no cgroup, or this process may not change it.
    pub async fn join_cgroup(&self, directory: &Path) -> Result<(), CgroupError> {
        cgroup::join(directory, self.process.id()).await
    }

    /// The current state, and each change of it.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<MachineState> {
        self.state.subscribe()
    }

    /// Waits for the end of the machine. Cancel-safe. Any number of tasks can wait, and all get the
    /// same result.
    pub fn wait(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
                Ok(Some(exit)) => exit,
                // The watching task ends early only together with its runtime. Then no task waits
                // any more.
                _ => std::future::pending().await,
            }
        }
    }

    /// The state of the machine in QEMU's word: `running`, `paused`, `shutdown`, ...
    ///
    /// # Errors
    /// If QEMU does not answer within 10 s, or has ended.
    pub async fn status(&self) -> Result<String, CommandFailed> {
        let status = self.monitor.execute("query-status").await?;
        Ok(status.get("status").and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned())
    }

    /// Stops the processors.
    ///
    /// # Errors
    /// If QEMU does not answer within 10 s, or has ended.
    pub async fn pause(&self) -> Result<(), CommandFailed> {
        Ok(self.monitor.execute("stop").await.map(drop)?)
    }

    /// Resumes the processors.
    ///
    /// # Errors
    /// If QEMU does not answer within 10 s, or has ended.
    pub async fn resume(&self) -> Result<(), CommandFailed> {
        Ok(self.monitor.execute("cont").await.map(drop)?)
    }

    /// Ends the machine in order. It presses the power button, and again every 2 s, and gives the
    /// guest the time `grace`. Then it asks QEMU to quit, and at last kills it. It takes at most
    /// `grace` and about 2 s. If the future is dropped, no further step is taken.
    pub async fn power_down(&self, grace: Duration) -> Exit {
        let deadline = Instant::now() + grace;
        let paused = *self.state.borrow() == MachineState::Paused;
        advance(&self.state, MachineState::PoweringDown);
        if paused {
            // A guest whose processors are stopped does not notice the button.
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
        match timeout(QUIT_TIMEOUT, quit).await {
            Ok(exit) => exit,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the machine and waits until nothing of it is left. It works for a frozen QEMU, too. If
    /// the future is dropped, the machine has been killed.
    pub async fn kill(&self) -> Exit {
        self.killed.store(true, Ordering::Relaxed);
        self.process.kill();
        self.wait().await
    }

    /// Saves the state of processors and devices, for a machine that [writes to the files of a new
    /// snapshot](crate::MachineSpec::snapshot_to). The machine is stopped from then on: kill it.
    ///
    /// # Errors
    /// If QEMU cannot save the state. A machine with a shared directory has no state that can be
    /// saved.
    pub async fn save_state(&self) -> Result<Vec<u8>, StateError> {
        self.transfer().save().await
    }

    async fn load_state(&self, state: Vec<u8>) -> Result<(), StateError> {
        self.transfer().load(state).await
    }

    fn transfer(&self) -> Transfer<'_, impl Future<Output = Exit>> {
        let status = self.migration.subscribe();
        Transfer { monitor: &self.monitor, status, ended: self.wait() }
    }
}
