//! The first process of a machine.
//!
//! Owns the way from the kernel to a running agent, and back to a machine that is off. The contract
//! with the host that builds the machine is in `ARCHITECTURE.md`.
//!
//! It is small on purpose. The kernel panics when its first process ends. So what reads the network
//! is a child, which may crash and is started again; the job survives that, see
//! [`job::run`](crate::job::run). The init itself reaps children, restarts the agent and stops the
//! machine. It has one thread, and starts children only by fork and exec. It handles SIGCHLD before
//! it starts the agent, so that it never misses the agent's end. Its other children are processes
//! whose parent has ended. They are only reaped.
//!
//! ```text
//!   mount ─► modules ─► card ─► root ─► names ─► agent ◄─┐ crash, backoff
//!     │ failure                                  ├───────┤
//!     │                                          │       └ deferred modules
//!     └─► printed to the console ─► power off ◄─ end all ◄─ power button, SIGTERM, SIGINT
//! ```
//!
//! The init does not tune TCP. The kernel's own tuning uses a link like this one fully. A larger
//! buffer would only hold more of a log that the host has not received.

mod boot_arguments;
mod modules;
mod mount;
mod netlink;
mod network;
mod power;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep_until};

use self::boot_arguments::{BootArguments, InvalidArgument};
use self::network::Network;
use crate::backoff::Backoff;
use crate::diagnostics::{print, with_causes};
use crate::system::names::{self, NameFile};

/// The environment of the agent, and so of every command.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TERM", "linux"),
];

/// An agent that ran this long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(60);

/// Why a machine cannot be what its host has asked for.
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

/// Runs as the init until the machine is off. For pid 1 only: it mounts file systems over the
/// present ones, and turns the machine off.
pub(crate) fn init() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        print(&format!("the init has failed: {panic}"));
        power::off();
    }));
    if let Err(error) = boot() {
        print(&format!("the machine cannot start: {}", with_causes(&error)));
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
    Network::open()?.connect(&arguments)?;
    let deferred = modules::DeferredModules::open();
    mount::enter(&arguments.root)?;
    if let Some(address) = arguments.resolver {
        NameFile::Resolver.write(&names::resolver(address));
        NameFile::Hosts.write(&names::hosts(arguments.hostname.as_deref().unwrap_or_default()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(deferred))
}

/// Keeps the agent running until the machine is to stop. Then ends all processes.
async fn run(deferred: modules::DeferredModules) -> Result<(), InitError> {
    let mut child_ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut backoff = Backoff::new();
    let mut started = Instant::now();
    let mut next = started;
    let devices = fs::File::open("/dev")?;
    let mut agent = try_start_agent();
    deferred.load();
    let mut buttons = power::PowerButtons::open(devices.as_fd());
    let reason = loop {
        tokio::select! {
            _ = child_ended.recv() => {}
            () = sleep_until(next), if agent.is_none() => {
                mount::follow_root();
                started = Instant::now();
                agent = try_start_agent();
                if agent.is_none() {
                    next = started + backoff.delay();
                }
            }
            () = buttons.pressed() => break "the power button was pressed",
            _ = terminate.recv() => break "the init got SIGTERM",
            _ = interrupt.recv() => break "the init got SIGINT",
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == agent {
                agent = None;
                if started.elapsed() >= SETTLED {
                    backoff.reset();
                }
                next = Instant::now() + backoff.delay();
                print(&format!("the agent has ended {} and is started again", ending(status)));
            }
        }
    };
    print(&format!("{reason}: the machine stops"));
    mount::follow_root();
    power::end_processes(&mut child_ended).await;
    Ok(())
}

fn ending(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("with exit status {code}"),
        (_, Some(signal)) => format!("by signal {signal}"),
        _ => String::new(),
    }
}

/// Starts the agent. If that fails, prints why.
fn try_start_agent() -> Option<Pid> {
    let agent = start_agent();
    agent.map_err(|error| print(&format!("cannot start the agent: {}", with_causes(&error)))).ok()
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
