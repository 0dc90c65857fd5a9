//! The supervisor's process: its set-up, its event loop, and the ending that it writes.
//!
//! Owns the order of these. The [`Lifecycle`] decides when to signal the command and when to stop.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use metaservice_protocol::{Ending, LogOutput, Reason};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::cgroup::Cgroup;
use super::console::Console;
use super::delivery::deliver;
use super::error::SuperviseError;
use super::go_ahead::GoAhead;
use super::input::{Input, feed};
use super::launch::{Launch, StartFailure};
use super::lifecycle::{FORCE_GRACE, Lifecycle, Step};
use super::order::{Environment, Kind, Order};
use super::tree::Tree;
use crate::log::output::OutputPipes;
use crate::state::StateDirectory;
use crate::system::account::Account;
use crate::system::descriptor::Descriptor;
use crate::system::oom;
use crate::system::processes::Process;
use crate::system::streams::{CommandStreams, give_to_user, input_pipe, null_device};

/// Runs a command from its start to its end. This process must have no other thread and no other
/// task.
///
/// # Errors
/// When the command was not launched. After that, any outcome is an [`Ending`].
pub(crate) fn supervise(order: &Order) -> Result<(), SuperviseError> {
    let parent = Pid::from_raw(order.agent);
    begin(order, Origin { parent, env: Environment::new(), go_ahead: None })
}

/// How a supervisor was started.
#[derive(Debug)]
pub(super) struct Origin {
    /// The agent or its fork server. A shell's supervisor dies with it.
    pub(super) parent: Option<Pid>,
    /// Added to the environment of this process for the command.
    pub(super) env: Environment,
    /// What to wait for before the command is started; `None` for a supervisor that was started
    /// as a program.
    pub(super) go_ahead: Option<GoAhead>,
}

/// Supervises a command in this process, which has just been started or forked.
pub(super) fn begin(order: &Order, origin: Origin) -> Result<(), SuperviseError> {
    let _ = rustix::thread::set_name(c"metaservice-sup");
    // A process that was just forked leads no group, so this succeeds.
    let _ = rustix::process::setsid();
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(io::Error::from)?;
    if order.kind == Kind::Shell {
        let death = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        death.map_err(io::Error::from)?;
        if agent_is_gone(order, origin.parent) {
            return Err(SuperviseError::AgentGone);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(order, origin))
}

/// The signals that a supervisor handles.
struct Signals {
    child: SignalStream,
    terminate: SignalStream,
    _ignored: [SignalStream; 2],
}

impl Signals {
    fn register() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            _ignored: [signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?],
        })
    }
}

async fn run(order: &Order, origin: Origin) -> Result<(), SuperviseError> {
    // Before the supervisor is registered: from then on it may get SIGTERM.
    let mut signals = Signals::register()?;
    let state = StateDirectory::at(order.state.clone());
    let mut output = None;
    if order.kind == Kind::Job {
        register(&state)?;
        output = Some(OutputPipes::create(order.separate)?);
    }
    let Started { mut command, console, input, started } = start(order, origin, output.as_ref())?;
    if let Some(main) = Process::find(command.main.as_raw_pid()) {
        state.set_main(&main.identity())?;
    }
    let mut copying = pin!(copy(console).fuse());
    let mut starting = pin!(closed(started).fuse());
    let (end, ended) = watch::channel(false);
    let mut feeding = pin!(feed(order, &state, input, ended.clone()).fuse());
    let mut delivering = pin!(deliver(order, &state, output, ended).fuse());
    loop {
        let children = command.reap();
        if command.children_ended(children) {
            break;
        }
        tokio::select! {
            _ = signals.child.recv() => {}
            _ = signals.terminate.recv() => command.kill(),
            () = &mut starting => state.set_begun()?,
            () = &mut copying => {}
            () = &mut feeding => {}
            () = &mut delivering => {}
            () = until(command.lifecycle.deadline()) => if command.deadline_passed() {
                break;
            },
        }
    }
    if !copying.is_terminated() {
        // The last output goes to the log, for as long as the service takes it. A process that
        // survived SIGKILL may hold the terminal for ever.
        let stuck = async {
            if command.lifecycle.is_forced() {
                sleep(FORCE_GRACE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = &mut copying => {}
            () = stuck => {}
            // Copying needs the delivery, which ends here only if the log was rejected.
            () = &mut delivering => {}
            // The rest of the log is not needed.
            _ = signals.terminate.recv() => {}
        }
    }
    state.set_ending(&command.ending(&state))?;
    end.send_replace(true);
    while !delivering.is_terminated() {
        tokio::select! {
            () = &mut delivering => {}
            () = &mut feeding => {}
            // The rest of the log is not needed.
            _ = signals.terminate.recv() => break,
        }
    }
    Ok(())
}

/// Registers this process as the supervisor of the command.
fn register(state: &StateDirectory) -> Result<(), SuperviseError> {
    let own = Process::own_identity().ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
    if state.set_supervisor(&own)? { Ok(()) } else { Err(SuperviseError::AlreadySupervised) }
}

/// A command that was started.
struct Started<'a> {
    command: SupervisedCommand<'a>,
    console: Option<Console>,
    input: Option<Input>,
    /// Closes when the command has started, or its child has written why not.
    started: Option<Descriptor>,
}

/// Starts the command. `output` are the pipes for the output of a job.
fn start<'a>(
    order: &'a Order,
    Origin { parent, env, go_ahead }: Origin,
    output: Option<&OutputPipes>,
) -> Result<Started<'a>, SuperviseError> {
    let own = rustix::process::getpid();
    let name = if order.kind == Kind::Job { "job" } else { "shell" };
    let cgroup = Cgroup::create(&format!("{name}-{}", own.as_raw_pid()));
    let (started, child_end) = if order.reports_start {
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
        _started: child_end,
    };
    let JobStreams { console, input, streams } = match output {
        Some(output) => job_streams(order, output)?,
        None => JobStreams::default(),
    };
    // Everything that can be done without starting the command is done.
    go_ahead.map_or(Ok(()), GoAhead::wait)?;
    let begun = Instant::now();
    let main = launch.spawn(streams.as_ref())?;
    // The command has copies of its streams. A pipe must end when those are closed.
    CommandStreams::null()?.install()?;
    let command = SupervisedCommand {
        order,
        parent,
        tree: Tree::new(cgroup),
        main,
        begun,
        lifecycle: Lifecycle::new(order.kind),
        ended: None,
        oom_kills: oom::kills(),
    };
    Ok(Started { command, console, input, started })
}

/// The standard streams of a job, and the supervisor's ends of them.
#[derive(Debug, Default)]
struct JobStreams {
    console: Option<Console>,
    input: Option<Input>,
    /// `None` for a shell, whose streams are those of this process.
    streams: Option<CommandStreams>,
}

/// The standard streams of a job: a terminal, or the pipes.
fn job_streams(order: &Order, output: &OutputPipes) -> Result<JobStreams, SuperviseError> {
    // The start of the command reports an unknown user.
    let user = order.user.as_ref().and_then(|user| Account::find(&user.to_string_lossy()).ok());
    if let Some(size) = order.terminal {
        let (console, end, streams) =
            Console::open(output.writer(LogOutput::Stdout), user.as_ref(), size)?;
        let input = match (order.stdin, end.terminal()) {
            (false, Some(terminal)) => Input::without_bytes(terminal),
            _ => Input::new(end),
        };
        return Ok(JobStreams {
            console: Some(console),
            input: Some(input),
            streams: Some(streams),
        });
    }
    let stdout = output.writer(LogOutput::Stdout).try_clone()?;
    let stderr = output.writer(LogOutput::Stderr).try_clone()?;
    give_to_user(&stdout, user.as_ref());
    give_to_user(&stderr, user.as_ref());
    let (input, stdin) = if order.stdin {
        let (end, stdin) = input_pipe(user.as_ref())?;
        (Some(Input::new(end)), stdin)
    } else {
        (None, null_device()?)
    };
    let streams = Some(CommandStreams { stdin, stdout, stderr });
    Ok(JobStreams { console: None, input, streams })
}

/// A command under supervision.
#[derive(Debug)]
struct SupervisedCommand<'a> {
    order: &'a Order,
    parent: Option<Pid>,
    tree: Tree,
    main: Pid,
    begun: Instant,
    lifecycle: Lifecycle,
    /// The status of the main process, and how long it ran.
    ended: Option<(WaitStatus, Duration)>,
    /// How many processes the kernel had killed for lack of memory before.
    oom_kills: Option<u64>,
}

impl SupervisedCommand<'_> {
    /// Takes the status of all children that have ended. Returns whether there are others.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => {
                    self.ended = Some((status, self.begun.elapsed()));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_no_child) => return false,
            }
        }
    }

    /// Returns whether the command is over.
    fn children_ended(&mut self, children: bool) -> bool {
        let Self { order, parent, lifecycle, ended, .. } = self;
        let agent_is_gone = || agent_is_gone(order, *parent);
        let now = tokio::time::Instant::now();
        let step = lifecycle.children_ended(ended.is_some(), children, agent_is_gone, now);
        self.take(step)
    }

    fn kill(&mut self) {
        let step = self.lifecycle.kill(self.ended.is_some(), tokio::time::Instant::now());
        self.take(step);
    }

    /// Returns whether the command is over.
    fn deadline_passed(&mut self) -> bool {
        let step = self.lifecycle.deadline_passed(tokio::time::Instant::now());
        self.take(step)
    }

    fn take(&self, step: Step) -> bool {
        match step {
            Step::Wait => {}
            Step::Ask(signals) => self.tree.ask(signals),
            Step::Force => self.tree.force(),
            Step::Over => return true,
        }
        false
    }

    fn ending(&self, state: &StateDirectory) -> Ending {
        let ending = self.ending_of_main(state);
        if self.order.kind == Kind::Shell && ending.is_success() {
            return ending;
        }
        Ending { oom_kills: self.oom_kills(), ..ending }
    }

    /// How many processes the kernel has killed for lack of memory while the command ran: of its
    /// control group, or else of the machine.
    fn oom_kills(&self) -> Option<u32> {
        let machine = || oom::kills()?.checked_sub(self.oom_kills?);
        let kills = self.tree.oom_kills().or_else(machine).filter(|kills| *kills > 0)?;
        Some(kills.try_into().unwrap_or(u32::MAX))
    }

    fn ending_of_main(&self, state: &StateDirectory) -> Ending {
        let killed = self.lifecycle.was_killed();
        let Some((status, wall)) = self.ended else {
            return Ending::new(if killed { Reason::Killed } else { Reason::Lost });
        };
        if let Some(StartFailure { reason, failure }) = StartFailure::read(state) {
            return Ending { failure: Some(failure), ..Ending::new(reason) };
        }
        let signal = status.terminating_signal().and_then(|signal| signal.try_into().ok());
        let reason = match (killed, signal) {
            (true, _) => Reason::Killed,
            (false, Some(_)) => Reason::Signaled,
            (false, None) => Reason::Exited,
        };
        Ending {
            exit_code: status.exit_status().and_then(|code| code.try_into().ok()),
            signal,
            wall_ms: Some(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
            ..with_usage(reason)
        }
    }
}

/// An ending with the resources that the command and all its ended descendants have used. They
/// became children of this process, and it has no others.
fn with_usage(reason: Reason) -> Ending {
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

async fn copy(console: Option<Console>) {
    if let Some(console) = console {
        console.copy().await;
    }
}

/// Completes when the other end of a pipe is closed. Without a pipe it never completes.
async fn closed(pipe: Option<Descriptor>) {
    match pipe {
        // Nothing is written, so it becomes readable by its end.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
