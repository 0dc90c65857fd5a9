//! The inputs, effects, rules and states of a job's life.

use std::time::{Duration, Instant};

/// What a job's life depends on, besides its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How the machine starts.
    pub start: Start,
    /// How long a restored guest may take to fetch its command. After it, the machine is booted.
    pub restore_timeout: Duration,
    /// How long a guest may take to fetch its command. After it, the job is lost. `None`: no
    /// limit.
    pub boot_timeout: Option<Duration>,
    /// How long all files together may take that the guest gets before the command starts. `None`:
    /// there are none.
    pub copy_in_timeout: Option<Duration>,
    /// How long the command may run, counted from its start. `None`: no limit.
    pub timeout: Option<Duration>,
    /// How long the guest may take to answer the order to kill the command when its timeout has
    /// passed. After it, the machine is killed.
    pub timeout_order_timeout: Duration,
    /// The same, when the command is killed for another reason.
    pub order_timeout: Duration,
    /// How long a killed command may take to be reported, if the guest has taken the order.
    pub kill_timeout: Duration,
    /// How long all artifacts together may take. `None`: there are no artifacts.
    pub artifact_timeout: Option<Duration>,
    /// How long the log of a lost job may take to be written.
    pub close_timeout: Duration,
    /// How long the machine is kept after the command has failed. `None`: it is not.
    pub keep: Option<Duration>,
    /// Whether the job's state is persistent: a signal leaves the job to a later service.
    pub persistent: bool,
    /// Whether the machine may be killed at any time: no state of it outlives it.
    pub disposable: bool,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From a snapshot.
    Restore,
    /// Without a snapshot.
    Boot,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The machine runs. The deadline for its guest begins.
    MachineStarted,
    /// The snapshot is unusable. No machine of this attempt is left.
    RestoreFailed,
    /// The machine cannot be started, neither from a snapshot nor by a boot.
    StartFailed,
    /// The guest fetched its command, this long ago.
    Fetched(Duration),
    /// The result that follows is a failure of the command, which no client has asked for.
    Failed,
    /// The files that the guest gets are in place, and it has started the command.
    CopiedIn,
    /// They are not in place, or the guest does not start the command.
    CopyInFailed,
    /// The guest reported the command's result.
    Result,
    /// The guest's agent cannot run the command: the command never started.
    Unsupported,
    /// The log cannot be written.
    LogFailed {
        /// Whether its reader has closed it, as `head` does.
        unread: bool,
    },
    /// The user wants the job to end.
    Signal(Signal),
    /// The machine ended without a request. What it sent before has been read.
    MachineGone {
        /// Whether the guest had reported a result.
        reported: bool,
    },
    /// The agent has polled before, and is silent.
    AgentSilent,
    /// The agent was silent, and has sent something.
    AgentBack,
    /// The agent has been silent for so long that it is given up.
    AgentDead,
    /// No guest has sent anything for so long that none is awaited any more.
    NoGuest,
    /// The machine is to be ended at once.
    Forced(Force),
    /// The guest has taken the order to kill the command.
    KillTaken,
    /// The guest refused to kill the command, or cannot be asked.
    KillFailed,
    /// The artifacts were fetched, or could not be.
    Collected(Collected),
    /// The log is written to its end, or could not be.
    Closed,
    /// The machine was ended, as requested.
    MachineEnded,
}

/// A signal to the host's process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u8);

/// Why a machine is ended by force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Force {
    /// A client has asked for it.
    Asked,
    /// A client has asked to kill the command, and the guest has not taken the order in time.
    KillNotTaken,
}

/// Something to do. What comes of it is reported as an [`Input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Start the machine. After a restore that failed this is a boot.
    Start(Start),
    /// Copy the files that the guest gets before the command, and start the command;
    /// [`Input::CopiedIn`] or [`Input::CopyInFailed`] follows.
    CopyIn,
    /// Stop copying files into the guest; nothing follows.
    StopCopyingIn,
    /// Ask the guest to kill the command, and give the reason. A result follows, or
    /// [`Input::KillFailed`].
    KillCommand(KillReason),
    /// Fetch the artifacts; [`Input::Collected`] follows.
    Collect,
    /// Stop fetching artifacts; nothing follows.
    StopCollecting,
    /// Kill the machine at once; nothing follows.
    KillMachine,
    /// Say that the machine is kept, for this long. Nothing follows.
    Keep(Duration),
    /// Write what was received of the log, and end the service; [`Input::Closed`] follows.
    Close,
    /// End the machine; [`Input::MachineEnded`] follows.
    EndMachine {
        /// Do not wait for the guest: it does not answer, or its machine was killed.
        at_once: bool,
    },
    /// The life is over: release everything. No effect follows.
    Finish(Outcome),
}

/// Why a command is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its timeout has passed.
    Timeout,
    /// A signal came.
    Signal(Signal),
    /// The files that it needs are not in place. It has not started.
    CopyIn {
        /// Whether they took longer than [`Rules::copy_in_timeout`].
        late: bool,
    },
    /// Its log cannot be written.
    LogFailed {
        /// Whether the log's reader has closed it.
        unread: bool,
    },
}

/// What became of the artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// All were fetched, or there were none.
    All,
    /// Some could not be fetched.
    Failed,
    /// They took longer than [`Rules::artifact_timeout`].
    Late,
    /// The machine was gone before all were fetched.
    MachineGone,
    /// The guest no longer answered.
    Unresponsive,
}

/// How a job's command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest reported a result, and nothing else ended the command.
    Result,
    /// The command was killed.
    Killed(KillReason),
    /// The machine was gone before there was a result.
    MachineGone,
    /// The machine did not start.
    NotStarted,
    /// The guest never fetched its command.
    NeverFetched,
    /// The agent has sent nothing for too long.
    AgentDead,
    /// No guest has sent anything for too long.
    NoGuest,
    /// The machine was ended by force.
    Forced(Force),
    /// A signal came before the guest fetched its command.
    Cancelled(Signal),
    /// A signal came, and the job is left to a later service with the same state.
    Left(Signal),
    /// The log's reader is gone, and nothing else was wanted of the job.
    Unread,
    /// A second signal came: nothing was waited for.
    Abandoned(Signal),
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How the command ended.
    pub end: End,
    /// What became of its artifacts.
    pub collected: Collected,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The machine starts, and its guest has not fetched its command.
    Starting(Start),
    /// The guest gets files, and the command waits for them.
    CopyingIn,
    /// The command runs.
    Running,
    /// The command runs, as far as is known: its agent is silent.
    Unresponsive,
    /// The command is being killed.
    Killing(KillReason),
    /// The artifacts are being fetched.
    Collecting,
    /// The command has failed, and its machine is kept for clients.
    Kept,
    /// The log is being written to its end.
    Closing,
    /// The machine is being ended.
    Ending,
    /// The life is over.
    Done,
}

/// The moment so long after now. One that no clock can count is a moment that nothing reaches.
pub(super) fn after(now: Instant, period: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
    now.checked_add(period).unwrap_or_else(|| now + FAR)
}
