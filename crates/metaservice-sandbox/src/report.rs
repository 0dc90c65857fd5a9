//! The final report of a job.

use metaservice::{JobResult, LogError};
use metaservice_qemu::Exit;

use crate::life::{Collected, End, KillReason, Outcome, Signal};
use crate::machine::MachineError;
use crate::progress::ProgressError;

/// The outcome of a job.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// How its command ended, and whether its artifacts were fetched.
    pub outcome: Outcome,
    /// What the guest reported, if it did.
    pub result: Option<JobResult>,
    /// Why the log is not complete, if it is not.
    pub log: Option<LogError>,
    /// Whether the guest had fetched its command.
    pub fetched: bool,
    /// The number of artifacts that were to be fetched and were not.
    pub missing: usize,
    /// Whether all artifacts together are larger than [they may be](crate::Builder::max_artifacts).
    pub exceeds_artifacts: bool,
    /// Why the machine did not start, if it did not.
    pub not_started: Option<MachineError>,
    /// How the machine ended, if it is known.
    pub exit: Option<Exit>,
    /// The last lines of the machine's console.
    pub console: Vec<String>,
    /// Why the job's end could not be persisted, if it could not.
    pub progress: Option<ProgressError>,
    /// Whether a snapshot of this machine would make the next start faster.
    pub wants_snapshot: bool,
}

/// The exit statuses of `docker run` and `timeout`.
mod status {
    /// The command was killed by its timeout.
    pub(super) const TIMED_OUT: u8 = 124;
    /// The job failed, and not its command.
    pub(super) const FAILED: u8 = 125;
    /// As of a process that SIGKILL (9) ends.
    pub(super) const FORCED: u8 = 128 + 9;
    /// As of a process that SIGPIPE (13) ends.
    pub(super) const UNREAD: u8 = 128 + 13;
}

impl Report {
    /// The exit status of the job, as `docker run` and `timeout` have it:
    ///
    /// | status | meaning |
    /// | --- | --- |
    /// | the command's | it ended, and everything was fetched; 128 + N if signal N killed it |
    /// | 124 | the timeout killed the command |
    /// | 125 | the job failed: no machine, no result, a lost log or artifact |
    /// | 128 + N | signal N to this process ended the job |
    /// | 137 | the machine was ended by force |
    /// | 141 | the log's reader has closed it, as for a process that SIGPIPE ends |
    #[must_use]
    pub fn status(&self) -> u8 {
        let signal = |Signal(number): Signal| 128 + number;
        match self.outcome.end {
            End::Result => self.result_status(),
            End::Killed(reason) => match reason {
                KillReason::Timeout => status::TIMED_OUT,
                KillReason::Signal(number) => signal(number),
                KillReason::LogFailed { unread: true } => status::UNREAD,
                KillReason::LogFailed { unread: false } | KillReason::CopyIn { .. } => {
                    status::FAILED
                }
            },
            End::Unread => status::UNREAD,
            End::Left(_) if self.log.is_some() => status::FAILED,
            End::Cancelled(number) | End::Left(number) | End::Abandoned(number) => signal(number),
            End::Forced(_) => status::FORCED,
            End::MachineGone
            | End::NotStarted
            | End::NeverFetched
            | End::AgentDead
            | End::NoGuest => status::FAILED,
        }
    }

    fn result_status(&self) -> u8 {
        let Some(result) = &self.result else { return status::FAILED };
        let unread = self.log.as_ref().is_some_and(|error| crate::output::is_unread(error));
        let complete = self.outcome.collected == Collected::All && self.log.is_none();
        match result.status() {
            0 if self.outcome.collected != Collected::All => status::FAILED,
            0 if unread => status::UNREAD,
            0 if !complete || self.progress.is_some() => status::FAILED,
            status => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use metaservice::{Ending, Reason};

    use super::*;
    use crate::life::Force;

    fn report(end: End, collected: Collected, result: Option<JobResult>) -> Report {
        Report {
            outcome: Outcome { end, collected },
            result,
            log: None,
            fetched: true,
            missing: 0,
            exceeds_artifacts: false,
            not_started: None,
            exit: None,
            console: Vec::new(),
            progress: None,
            wants_snapshot: false,
        }
    }

    fn result(success: bool, ending: Option<Ending>) -> Option<JobResult> {
        Some(JobResult::new(success, ending))
    }

    #[test]
    fn a_command_has_its_own_status() {
        let status = |result| report(End::Result, Collected::All, result).status();
        assert_eq!(status(result(true, None)), 0);
        assert_eq!(status(result(false, None)), 1);
        let timed_out = Ending::new(Reason::TimedOut);
        assert_eq!(status(result(false, Some(timed_out))), 124);
    }

    #[test]
    fn a_success_without_its_artifacts_is_a_failure_and_a_failure_keeps_its_status() {
        for collected in [Collected::Failed, Collected::Late, Collected::MachineGone] {
            assert_eq!(report(End::Result, collected, result(true, None)).status(), 125);
            assert_eq!(report(End::Result, collected, result(false, None)).status(), 1);
        }
    }

    #[test]
    fn other_ends_have_the_statuses_of_docker_and_timeout() {
        let status = |end| report(end, Collected::MachineGone, result(true, None)).status();
        assert_eq!(status(End::Killed(KillReason::Timeout)), 124);
        assert_eq!(status(End::Killed(KillReason::Signal(Signal(15)))), 143);
        assert_eq!(status(End::Killed(KillReason::LogFailed { unread: false })), 125);
        assert_eq!(status(End::Killed(KillReason::LogFailed { unread: true })), 141);
        assert_eq!(status(End::Unread), 141);
        let lost = [End::MachineGone, End::NeverFetched, End::AgentDead, End::NoGuest];
        for end in lost.into_iter().chain([End::NotStarted]) {
            assert_eq!(status(end), 125);
        }
        assert_eq!(status(End::Forced(Force::Asked)), 137);
        for end in [End::Cancelled(Signal(2)), End::Left(Signal(2)), End::Abandoned(Signal(2))] {
            assert_eq!(status(end), 130);
        }
    }
}
