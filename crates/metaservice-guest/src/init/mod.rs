//! The first process of a machine.
//!
//! Owns the way from the kernel's hand-over to a running agent, and back to a powered-off
//! machine. The contract with whoever builds the machine is in `ARCHITECTURE.md`.
//!
//! It stays small on purpose. The kernel panics when its first process ends, so whatever talks
//! to strangers is a child, which may crash and is started again; the job survives that, see
//! [`job`](crate::job). The init itself only reaps, restarts and stops. It has one thread and
//! starts children only by fork and exec.
//!
//! ```text
//!   mount ─► modules ─► service's card ─► root ─► (world's card) ─► agent ◄─┐ crash, back-off
//!     │ failure                                                      ├──────┤
//!     │                                                              │      └ the other modules
//!     └──► said on the console ──────────► power off ◄── end all ◄── power button, SIGTERM, SIGINT
//! ```
//!
//! TCP is left as the kernel sets it up: its own tuning takes a link like this one to its limit,
//! and a larger buffer would only hold more of a log that the host has not seen.

mod boot_arguments;
mod dhcp;
mod modules;
mod mount;
mod netlink;
mod network;
mod power;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep_until};

use self::boot_arguments::{BootArguments, InvalidArgument};
use self::network::Network;
use crate::backoff::Backoff;
use crate::diagnostics::{chain, say};

/// The environment of the agent, and so of every command.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// An agent that has lived this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(60);

/// A machine that cannot be what its host wants it to be.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error(transparent)]
    Mount(#[from] mount::MountError),
    #[error(transparent)]
    Arguments(#[from] InvalidArgument),
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    #[error("cannot set the host name")]
    Hostname(#[source] io::Error),
    #[error("the init cannot work")]
    Io(#[from] io::Error),
}

/// Is the init of a machine, from here to its power-off. For pid 1 alone: it mounts over
/// what there is, and turns the machine off.
pub fn init() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("the init has failed: {panic}"));
        power::off();
    }));
    if let Err(error) = boot() {
        say(&format!("the machine cannot start: {}", chain(&error)));
    }
    power::off()
}

fn boot() -> Result<(), InitError> {
    mount::kernel_file_systems()?;
    let arguments = BootArguments::parse(&fs::read_to_string("/proc/cmdline")?)?;
    mount::memory_file_systems(&arguments.root)?;
    modules::load();
    if let Some(name) = &arguments.hostname {
        let set = rustix::system::sethostname(name.as_bytes());
        set.map_err(|error| InitError::Hostname(error.into()))?;
    }
    let mut network = Network::open()?;
    network.connect_service(arguments.address)?;
    let later = modules::Later::open();
    mount::enter(&arguments.root)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if arguments.user_network {
            network.connect_world().await;
        }
        drop(network);
        run(later).await
    })
}

/// Keeps the agent running until the machine is to stop, and ends everyone then.
async fn run(later: modules::Later) -> Result<(), InitError> {
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut backoff = Backoff::new();
    let mut started = Instant::now();
    let mut next = started;
    let mut agent = started_agent();
    later.load();
    let mut button = power::button();
    let why = loop {
        tokio::select! {
            _ = ended.recv() => {}
            () = sleep_until(next), if agent.is_none() => {
                started = Instant::now();
                agent = started_agent();
                if agent.is_none() {
                    next = started + backoff.delay();
                }
            }
            Some(()) = button.recv() => break "the power button was pressed",
            _ = terminate.recv() => break "SIGTERM has come",
            _ = interrupt.recv() => break "SIGINT has come",
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == agent {
                agent = None;
                if started.elapsed() >= SETTLED {
                    backoff.reset();
                }
                next = Instant::now() + backoff.delay();
                say(&format!("the agent has ended {} and is started again", how(status)));
            }
        }
    };
    say(&format!("{why}: the machine stops"));
    power::end_everyone(&mut ended).await;
    Ok(())
}

fn how(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("with exit status {code}"),
        (_, Some(signal)) => format!("by signal {signal}"),
        _ => String::new(),
    }
}

/// The agent's process, if there is one now.
fn started_agent() -> Option<Pid> {
    let agent = start_agent();
    agent.map_err(|error| say(&format!("the agent cannot be started: {}", chain(&error)))).ok()
}

fn start_agent() -> io::Result<Pid> {
    let child = Command::new("/proc/self/exe")
        .arg0("metaservice-guest")
        .args(["--stay", "run"])
        .env_clear()
        .envs(ENVIRONMENT)
        .stdin(Stdio::null())
        .spawn()?;
    Ok(Pid::from_child(&child))
}
