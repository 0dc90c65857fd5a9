//! The small process between the agent and a command.
//!
//! Owns one command's life: it starts it, waits for it, takes its tree down, and leaves word
//! of the ending in the state folder. It is a process of its own, with one thread, because
//! it must outlive the agent's death, be the parent that orphans of the command come to, and
//! do things to itself that no thread of a larger program may.
//!
//! ```text
//!            main process ends, nothing left ────────────────────────────┐
//!   running ── main process ends, tree left ─► asked (1 s) ── all gone ──┤
//!      └───── SIGTERM (= kill) ──────────────► asked (5 s) ── all gone ──┼─► ending written
//!                                                └ grace over ─► forced ─┘   job:   log delivered, exit
//!                                                               (5 s at most) shell: exit
//! ```
//!
//! A job ends with its command, as a container does: what is left of its tree is killed. A
//! shell that ends by itself leaves its background processes alone, as users of ssh expect.
//!
//! A job's supervisor sends the command's output to the service itself and stays until that is
//! delivered, so that no byte dies with an agent. SIGTERM is the one thing it is told: first to
//! kill the command, and once that has ended, that nobody waits for the rest of the log.

mod cgroup;
mod console;
mod fork;
mod fork_server;
mod handle;
mod launch;
mod order;
mod tree;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, Instant};

use metaservice_protocol::{Ending, Reason};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant as Deadline, sleep, sleep_until};

use self::cgroup::Cgroup;
use self::console::Console;
pub use self::fork_server::zygote;
pub(crate) use self::fork_server::{Birth, NoCopy, Unborn, Zygote};
use self::fork_server::{Env, Word};
pub(crate) use self::handle::Supervisor;
use self::launch::Launch;
pub(crate) use self::launch::StartFailure;
pub use self::order::{InvalidOrder, Kind, LogRoute, Order};
use self::tree::Tree;
pub(crate) use self::tree::signal as signal_process;
use crate::client::Client;
use crate::client::host::Host;
use crate::log::{self, Output};
use crate::program::hide_unit;
use crate::state::{Folder, StateError};
use crate::system::account::Account;
use crate::system::descriptor::Descriptor;
use crate::system::oom;
use crate::system::processes::Process;
use crate::system::streams::Streams;

/// How long a command may take to end after it was asked to.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long what is left of a tree may take, after the command itself has ended.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);

/// How long the killed may take to be gone. Only those in the midst of broken I/O take longer,
/// and those that are not ours to kill; they are left.
const FORCE_GRACE: Duration = Duration::from_secs(5);

/// A supervisor that could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The kernel refused something that it normally grants.
    #[error("the supervisor cannot work")]
    Io(#[from] io::Error),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The agent that ordered it has died already.
    #[error("the agent is gone")]
    Orphaned,
    /// The agent does not want the command started by this process any longer.
    #[error("the order was given up")]
    GivenUp,
    /// The folder's command has a supervisor.
    #[error("the command is supervised already")]
    Claimed,
}

/// Runs a command from its start to its end. This process must have no other thread and no
/// other purpose.
///
/// # Errors
/// [`SuperviseError`] when the command could not even be launched; once it was, however it
/// ends is an [`Ending`].
pub fn supervise(order: &Order) -> Result<(), SuperviseError> {
    let origin = Origin { parent: Pid::from_raw(order.agent), env: Env::new(), word: None };
    begin(order, origin)
}

/// How a supervisor came to be.
#[derive(Debug)]
struct Origin {
    /// Who has started it, and dies with the agent or is it. A shell's supervisor dies with that.
    parent: Option<Pid>,
    /// What the command has in its environment beside what this process has.
    env: Env,
    /// How the agent says that the command may start, where the start of this does not say it.
    word: Option<Word>,
}

fn begin(order: &Order, origin: Origin) -> Result<(), SuperviseError> {
    let _ = rustix::thread::set_name(c"metaservice-sup");
    // Not a leader yet, since its parent has just forked it: this cannot fail.
    let _ = rustix::process::setsid();
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(io::Error::from)?;
    if order.kind == Kind::Shell {
        let death = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        death.map_err(io::Error::from)?;
        if agent_is_gone(order, origin.parent) {
            return Err(SuperviseError::Orphaned);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Supervision::run(order, origin))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Asked(Deadline),
    Forced(Deadline),
}

/// One command under supervision.
#[derive(Debug)]
struct Supervision<'a> {
    order: &'a Order,
    parent: Option<Pid>,
    tree: Tree,
    main: Pid,
    started: Instant,
    phase: Phase,
    ended: Option<(WaitStatus, Duration)>,
    killed: bool,
    /// How many processes the machine's kernel had killed for lack of memory before.
    oom_kills: Option<u64>,
    console: Option<Console>,
    /// Becomes readable when the command has been started or has failed to.
    awaited: Option<Descriptor>,
}

impl<'a> Supervision<'a> {
    async fn run(order: &'a Order, origin: Origin) -> Result<(), SuperviseError> {
        // Before the claim: who reads it may signal at once.
        let mut child_ended = signal(SignalKind::child())?;
        let mut told = signal(SignalKind::terminate())?;
        let _ignored = [signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?];

        let folder = Folder::at(order.folder.clone());
        let own = rustix::process::getpid();
        let mut output = None;
        if order.kind == Kind::Job {
            let found = Process::find(own.as_raw_pid()).ok_or(io::ErrorKind::NotFound);
            let claim = found.map_err(io::Error::from)?.claim();
            if !folder.make_claim(&claim)? {
                return Err(SuperviseError::Claimed);
            }
            output = Some(Output::pipe()?);
        }
        let writer = output.as_ref().map(|(_, writer)| writer);
        let mut supervision = Self::start(order, origin, writer)?;
        if let Some(main) = Process::find(supervision.main.as_raw_pid()) {
            folder.set_main(&main.claim())?;
        }
        let console = supervision.console.take();
        let mut copied = console.is_none();
        let mut copying = pin!(async {
            if let Some(console) = console {
                console.copy().await;
            }
        });
        let awaited = supervision.awaited.take();
        let mut begun = awaited.is_none();
        let mut beginning = pin!(async {
            if let Some(awaited) = awaited {
                // Nothing is written: it becomes readable by its end.
                let _ = awaited.readable().await;
            }
        });
        let (end, ended) = watch::channel(false);
        let mut delivering = pin!(deliver(order, &folder, output, ended));
        let mut delivered = false;
        loop {
            let children = supervision.reap();
            if supervision.is_over(children) {
                break;
            }
            let deadline = match supervision.phase {
                Phase::Running => None,
                Phase::Asked(deadline) | Phase::Forced(deadline) => Some(deadline),
            };
            tokio::select! {
                _ = child_ended.recv() => {}
                _ = told.recv() => supervision.kill(),
                () = &mut beginning, if !begun => {
                    begun = true;
                    folder.set_begun()?;
                }
                () = &mut copying, if !copied => copied = true,
                () = &mut delivering, if !delivered => delivered = true,
                () = until(deadline) => {
                    if let Phase::Forced(_) = supervision.phase {
                        break;
                    }
                    supervision.phase = Phase::Forced(Deadline::now() + FORCE_GRACE);
                    supervision.tree.force();
                }
            }
        }
        if !copied {
            // The command's last words, for as long as it takes the service to take them; but what
            // even SIGKILL did not end may hold the terminal for ever.
            let stuck = async {
                match supervision.phase {
                    Phase::Forced(_) => sleep(FORCE_GRACE).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut copying => {}
                () = stuck => {}
                // What is copied has to go on; it has no end before it is told of one.
                () = &mut delivering, if !delivered => delivered = true,
                // Nobody will take the rest.
                _ = told.recv() => {}
            }
        }
        folder.set_ending(&supervision.ending(&folder))?;
        end.send_replace(true);
        if !delivered {
            tokio::select! {
                () = &mut delivering => {}
                // Nobody waits for the rest.
                _ = told.recv() => {}
            }
        }
        Ok(())
    }

    fn start(
        order: &'a Order,
        Origin { parent, env, word }: Origin,
        writer: Option<&OwnedFd>,
    ) -> Result<Self, SuperviseError> {
        let own = rustix::process::getpid();
        let name = if order.kind == Kind::Job { "job" } else { "shell" };
        let cgroup = Cgroup::make(&format!("{name}-{}", own.as_raw_pid()));
        let (awaited, begun) = if order.awaited {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
            (Some(Descriptor::new(read)?), Some(write))
        } else {
            (None, None)
        };
        let launch = Launch {
            order: order.clone(),
            env,
            parent: own,
            cgroup: cgroup.as_ref(),
            tty: order.tty || order.terminal.is_some(),
            _begun: begun,
        };
        let mut console = None;
        let mut streams = None;
        if let (Some(size), Some(writer)) = (order.terminal, writer) {
            let user =
                order.user.as_ref().and_then(|user| Account::find(&user.to_string_lossy()).ok());
            let (made, theirs) = Console::open(writer, user.as_ref(), size)?;
            streams = Some(theirs);
            console = Some(made);
        } else if let Some(writer) = writer {
            let (stdout, stderr) = (writer.try_clone()?, writer.try_clone()?);
            if let Some(user) = &order.user {
                hand_over(&stdout, &user.to_string_lossy());
            }
            streams = Some(Streams { stdin: null()?, stdout, stderr });
        }
        // The last thing that can be done without a command.
        word.map_or(Ok(()), Word::wait)?;
        let started = Instant::now();
        let main = launch.spawn(streams.as_ref())?;
        let_go_of_standard_streams()?;
        Ok(Self {
            order,
            parent,
            tree: Tree::new(cgroup),
            main,
            started,
            phase: Phase::Running,
            ended: None,
            killed: false,
            oom_kills: oom::kills(),
            console,
            awaited,
        })
    }

    /// Takes the status of all children that have ended; `false` when there are no others.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => {
                    self.ended = Some((status, self.started.elapsed()));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_no_child) => return false,
            }
        }
    }

    /// Whether there is nothing more to wait for; moves on when the command itself has ended.
    fn is_over(&mut self, children: bool) -> bool {
        if !children {
            return true;
        }
        match self.phase {
            Phase::Running if self.ended.is_none() => false,
            Phase::Running if self.order.kind == Kind::Shell => {
                // A terminal hangs up when its agent dies, and that may end the command
                // before the agent's death is told.
                let orphaned = agent_is_gone(self.order, self.parent);
                if orphaned {
                    self.killed = true;
                    self.ask(&[Signal::HUP, Signal::TERM], KILL_GRACE);
                }
                !orphaned
            }
            Phase::Running => {
                self.ask(&[Signal::TERM], LEFTOVER_GRACE);
                false
            }
            // Looks again: somebody may have forked while the others were being killed.
            Phase::Forced(_) => {
                self.tree.force();
                false
            }
            Phase::Asked(_) => false,
        }
    }

    fn kill(&mut self) {
        if self.phase == Phase::Running && self.ended.is_none() {
            self.killed = true;
            match self.order.kind {
                Kind::Job => self.ask(&[Signal::TERM], KILL_GRACE),
                // Interactive shells ignore SIGTERM.
                Kind::Shell => self.ask(&[Signal::HUP, Signal::TERM], KILL_GRACE),
            }
        }
    }

    fn ask(&mut self, signals: &[Signal], grace: Duration) {
        self.phase = Phase::Asked(Deadline::now() + grace);
        self.tree.ask(signals);
    }

    fn ending(&self, folder: &Folder) -> Ending {
        let ending = self.ending_of_main(folder);
        if self.order.kind == Kind::Shell && ending.is_success() {
            return ending;
        }
        Ending { oom_kills: self.oom_kills(), ..ending }
    }

    /// How many processes the kernel has killed for lack of memory while the command ran.
    fn oom_kills(&self) -> Option<u32> {
        let machine = || oom::kills()?.checked_sub(self.oom_kills?);
        let kills = self.tree.oom_kills().or_else(machine).filter(|kills| *kills > 0)?;
        Some(kills.try_into().unwrap_or(u32::MAX))
    }

    fn ending_of_main(&self, folder: &Folder) -> Ending {
        let Some((status, wall)) = self.ended else {
            return Ending::new(if self.killed { Reason::Killed } else { Reason::Lost });
        };
        if let Some(StartFailure { reason, .. }) = StartFailure::of(folder) {
            return Ending::new(reason);
        }
        let signal = status.terminating_signal().and_then(|signal| signal.try_into().ok());
        let reason = match (self.killed, signal) {
            (true, _) => Reason::Killed,
            (false, Some(_)) => Reason::Signaled,
            (false, None) => Reason::Exited,
        };
        Ending {
            exit_code: status.exit_status().and_then(|code| code.try_into().ok()),
            signal,
            wall_ms: Some(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
            ..used(reason)
        }
    }
}

/// An ending with what the command and all descendants that ended have used: they were this
/// process's children in the end, and it has no others.
fn used(reason: Reason) -> Ending {
    let ending = Ending::new(reason);
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return ending };
    let milliseconds = |time: nix::sys::time::TimeVal| u64::try_from(time.num_milliseconds()).ok();
    Ending {
        cpu_user_ms: milliseconds(usage.user_time()),
        cpu_system_ms: milliseconds(usage.system_time()),
        // In KiB on Linux (getrusage(2)).
        peak_memory: u64::try_from(usage.max_rss()).ok().map(|kib| kib.saturating_mul(1024)),
        ..ending
    }
}

fn agent_is_gone(order: &Order, parent: Option<Pid>) -> bool {
    rustix::process::getppid() != parent
        || Process::find(order.agent).is_none_or(|process| process.zombie || process.exiting)
}

async fn until(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sends a job's output until it has ended and the service has it.
async fn deliver(
    order: &Order,
    folder: &Folder,
    output: Option<(OwnedFd, OwnedFd)>,
    ended: watch::Receiver<bool>,
) {
    // The writing end is kept: without it the output would end with whoever closes it.
    let Some((reader, _writer)) = output else { return };
    let route = order.log.as_ref().and_then(|log| Some((log, Host::parse(&log.host).ok()?)));
    let claim = Process::find(rustix::process::getpid().as_raw_pid()).map(Process::claim);
    let stream = claim.and_then(|claim| claim.as_id());
    let (Some((log, host)), Some(stream), Ok(mut output)) =
        (route, stream, Output::new(reader, ended))
    else {
        return;
    };
    let client = Client::new(host);
    client.set_session(folder.session().as_ref().map(|grant| grant.secret.as_str()));
    if log.numbered {
        log::deliver(&client, stream, &mut output).await;
    } else {
        log::deliver_plain(&client, &mut output).await;
    }
    let _ = folder.set_delivered();
}

/// Gives the pipe to the user that the command runs as, who may want to open it again by way
/// of `/dev/stderr`.
fn hand_over(output: &OwnedFd, user: &str) {
    if let Ok(account) = crate::system::account::Account::find(user) {
        let uid = rustix::fs::Uid::from_raw(account.uid);
        let _ = rustix::fs::fchown(output, Some(uid), None);
    }
}

/// The command has its own copies; a pipe must end when those are closed.
fn let_go_of_standard_streams() -> io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn null() -> io::Result<OwnedFd> {
    Ok(fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

/// The supervisor's command line, for an agent.
pub(crate) fn command(order: &Order, env: &[(String, String)]) -> Command {
    let mut command = order.as_command();
    hide_unit(&mut command).envs(env.iter().map(|(name, value)| (name, value)));
    command
}
