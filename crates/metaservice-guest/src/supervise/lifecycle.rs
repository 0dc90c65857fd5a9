//! When a supervisor asks its processes to end, kills them, and stops.
//!
//! Owns the decisions, without processes and clocks: events with the current time go in, steps come
//! out.
//!
//! ```text
//!            main process ends, nothing left ───────────────────────────────────┐
//!   Running ── main process of a job ends, tree left ─► Asked (1 s) ── no child ─┤
//!      └────── SIGTERM: kill ─────────────────────────► Asked (5 s) ── no child ─┼─► over
//!                                                        └ timeout ─► Forced ────┘
//!                                                                     (5 s at most)
//! ```
//!
//! The supervisor is the subreaper of its processes, so it has no children exactly when no process
//! of the tree is left.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::order::Kind;

/// How long a command may take to end after SIGTERM.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long the rest of a job's tree may take to end after its main process.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);

/// How long killed processes may take to be gone. Only a process that hangs in I/O, or that the
/// supervisor may not kill, takes longer, and is left.
pub(super) const FORCE_GRACE: Duration = Duration::from_secs(5);

/// An interactive shell ignores SIGTERM and ends by SIGHUP.
const HANG_UP: &[Signal] = &[Signal::HUP, Signal::TERM];
const TERMINATE: &[Signal] = &[Signal::TERM];

/// What the supervisor does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for the next event.
    Wait,
    /// Send these signals to all processes, once.
    Ask(&'static [Signal]),
    /// Kill all processes.
    Force,
    /// The command has ended and needs no more waiting.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Asked(Instant),
    Forced(Instant),
}

/// The life of one supervised command.
#[derive(Debug)]
pub(super) struct Lifecycle {
    kind: Kind,
    phase: Phase,
    killed: bool,
}

impl Lifecycle {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, phase: Phase::Running, killed: false }
    }

    /// Whether the command was killed, instead of ending by itself.
    pub(super) const fn was_killed(&self) -> bool {
        self.killed
    }

    /// Whether even SIGKILL may leave a process.
    pub(super) const fn is_forced(&self) -> bool {
        matches!(self.phase, Phase::Forced(_))
    }

    /// When to call [`deadline_passed`](Self::deadline_passed).
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => None,
            Phase::Asked(deadline) | Phase::Forced(deadline) => Some(deadline),
        }
    }

    /// Children have ended, or this is the start. `children` is whether any are left.
    pub(super) fn children_ended(
        &mut self,
        main_ended: bool,
        children: bool,
        agent_is_gone: impl FnOnce() -> bool,
        now: Instant,
    ) -> Step {
        if !children {
            return Step::Over;
        }
        match self.phase {
            Phase::Running if !main_ended => Step::Wait,
            Phase::Running if self.kind == Kind::Shell => {
                // When the agent dies, its terminals hang up. That may end the command before
                // this process gets the signal for the agent's death.
                if !agent_is_gone() {
                    return Step::Over;
                }
                self.killed = true;
                self.ask(HANG_UP, KILL_GRACE, now)
            }
            Phase::Running => self.ask(TERMINATE, LEFTOVER_GRACE, now),
            Phase::Asked(_) => Step::Wait,
            // A process may have forked while the others were killed.
            Phase::Forced(_) => Step::Force,
        }
    }

    /// The command is to be killed. Has an effect once, and only before its end.
    pub(super) fn kill(&mut self, main_ended: bool, now: Instant) -> Step {
        if self.phase != Phase::Running || main_ended {
            return Step::Wait;
        }
        self.killed = true;
        let signals = if self.kind == Kind::Job { TERMINATE } else { HANG_UP };
        self.ask(signals, KILL_GRACE, now)
    }

    /// The deadline has passed.
    pub(super) fn deadline_passed(&mut self, now: Instant) -> Step {
        match self.phase {
            Phase::Running => Step::Wait,
            Phase::Asked(_) => {
                self.phase = Phase::Forced(now + FORCE_GRACE);
                Step::Force
            }
            Phase::Forced(_) => Step::Over,
        }
    }

    fn ask(&mut self, signals: &'static [Signal], grace: Duration, now: Instant) -> Step {
        self.phase = Phase::Asked(now + grace);
        Step::Ask(signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: fn() -> bool = || false;
    const GONE: fn() -> bool = || true;

    #[test]
    fn a_job_takes_its_tree_with_it() {
        let (now, mut job) = (Instant::now(), Lifecycle::new(Kind::Job));
        assert_eq!(job.children_ended(false, true, PRESENT, now), Step::Wait);
        assert_eq!(job.children_ended(true, true, PRESENT, now), Step::Ask(TERMINATE));
        assert_eq!(job.deadline(), Some(now + LEFTOVER_GRACE));
        // It has ended by itself: a kill comes too late and does not extend the grace period.
        assert_eq!(job.kill(true, now), Step::Wait);
        assert_eq!(job.children_ended(true, true, PRESENT, now), Step::Wait);
        assert_eq!(job.deadline_passed(now + LEFTOVER_GRACE), Step::Force);
        assert!(job.is_forced());
        assert_eq!(job.children_ended(true, true, PRESENT, now), Step::Force);
        assert_eq!(job.children_ended(true, false, PRESENT, now), Step::Over);
        assert!(!job.was_killed());
    }

    #[test]
    fn a_shell_leaves_its_background_processes_unless_its_agent_is_gone() {
        let now = Instant::now();
        let mut shell = Lifecycle::new(Kind::Shell);
        assert_eq!(shell.children_ended(true, true, PRESENT, now), Step::Over);
        let mut shell = Lifecycle::new(Kind::Shell);
        assert_eq!(shell.children_ended(true, true, GONE, now), Step::Ask(HANG_UP));
        assert!(shell.was_killed());
    }

    #[test]
    fn a_kill_has_a_grace_period_and_then_force_which_ends_too() {
        for (kind, signals) in [(Kind::Job, TERMINATE), (Kind::Shell, HANG_UP)] {
            let (now, mut command) = (Instant::now(), Lifecycle::new(kind));
            assert_eq!(command.kill(false, now), Step::Ask(signals));
            assert_eq!(command.kill(false, now), Step::Wait);
            let deadline = command.deadline().unwrap();
            assert_eq!(deadline, now + KILL_GRACE);
            assert_eq!(command.deadline_passed(deadline), Step::Force);
            let last = command.deadline().unwrap();
            assert_eq!(last, deadline + FORCE_GRACE);
            assert_eq!(command.deadline_passed(last), Step::Over);
            assert!(command.was_killed());
        }
    }
}
