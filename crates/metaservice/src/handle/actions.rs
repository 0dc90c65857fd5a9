//! Actions on the job and the guest as a whole.

use std::time::Duration;

use metaservice_protocol::limits::{MAX_STATS_INTERVAL_MS, MIN_STATS_INTERVAL_MS};
use metaservice_protocol::{ActionRequest, Signal, StartOptions, Stats, StatsOptions};

use crate::handle::error::ActionError;
use crate::handle::lines::Lines;
use crate::handle::service::MetaService;

impl MetaService {
    /// Kills the job's command and everything under it. Returns when the guest has done so; the
    /// result is then reported as for any command that died. A guest may not react: stop its
    /// machine too if you must be sure.
    ///
    /// # Errors
    /// [`ActionError`]. If the connection breaks, the action is tried three times.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action, unless the guest has it already.
    pub async fn kill(&self) -> Result<(), ActionError> {
        self.act_done(ActionRequest::KillProcess).await
    }

    /// Starts the command of a job that [holds](crate::Builder::hold) it. Returns when the guest
    /// has started it, or has found that it cannot be started: the result says so. A command that
    /// runs is not started again.
    ///
    /// # Errors
    /// [`ActionError`]. If the connection breaks, the action is tried three times.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action, unless the guest has it already.
    pub async fn start_command(&self) -> Result<(), ActionError> {
        self.act_done(ActionRequest::Start(StartOptions::default())).await
    }

    /// [Kills](Self::kill) the job's command because its time is over. The reason of a result that
    /// says *killed* becomes [`Reason::TimedOut`](crate::Reason::TimedOut).
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub async fn time_out(&self) -> Result<(), ActionError> {
        self.killed_by_timeout();
        self.kill().await
    }

    /// Sends the job's main process a signal, by its number on Linux.
    ///
    /// # Errors
    /// [`ActionError`]. An agent of version 1 cannot do this.
    pub async fn signal(&self, signal: u8) -> Result<(), ActionError> {
        self.act_done(ActionRequest::Signal(Signal { signal })).await
    }

    /// Statistics of the guest: once, or at each interval until you drop them. An interval is
    /// between 0.1 s and 10 s; another one is moved to the nearer end.
    ///
    /// # Errors
    /// [`ActionError`]. An agent of version 1 cannot do this.
    pub async fn stats(&self, interval: Option<Duration>) -> Result<Lines<Stats>, ActionError> {
        let interval_ms = interval.map(|interval| {
            let milliseconds = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
            milliseconds.clamp(MIN_STATS_INTERVAL_MS, MAX_STATS_INTERVAL_MS)
        });
        self.incoming(ActionRequest::Stats(StatsOptions { interval_ms })).await.map(Lines::new)
    }
}
