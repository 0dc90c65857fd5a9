//! Where the supervisors of shells come from: the fork server, or a program.
//!
//! Owns the fork server. It is started with the first shell, and again when it has ended. If it
//! does not answer in time, something stops processes in this guest: it is not used again, but not
//! ended either, because the shells that it has forked still run.

use std::io;
use std::sync::{Mutex, MutexGuard};

use metaservice_private::lock;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::supervise::{
    ForkError, ForkServer, Order, OrderError, PendingFork, Supervisor, supervisor_command,
};
use crate::system::streams::CommandStreams;

/// How many supervisors are forked before their command is wanted. Each uses eight descriptors,
/// and a host may leave 256 shells waiting.
const MAX_EARLY: usize = 32;

/// Creates supervisors for shells.
#[derive(Debug)]
pub(super) struct Supervisors {
    server: Mutex<ServerSlot>,
    early: Semaphore,
}

impl Default for Supervisors {
    fn default() -> Self {
        Self { server: Mutex::default(), early: Semaphore::new(MAX_EARLY) }
    }
}

#[derive(Debug, Default)]
struct ServerSlot {
    server: Option<ForkServer>,
    /// Whether the server did not answer in time.
    unresponsive: bool,
}

/// A supervisor that is being created. Dropping this cancels it.
#[derive(Debug)]
pub(super) struct PreparedSupervisor<'a> {
    supervisors: &'a Supervisors,
    order: Order,
    env: Vec<(String, String)>,
    streams: CommandStreams,
    pending: Option<PendingFork>,
}

impl PreparedSupervisor<'_> {
    /// Lets the forked supervisor start its command. If the fork failed, starts a supervisor as a
    /// program. Dropping the future cancels the order; the command runs at most once.
    pub(super) async fn start(self) -> io::Result<Supervisor> {
        let Self { supervisors, order, env, streams, pending } = self;
        if let Some(pending) = pending {
            match pending.go_ahead().await {
                Ok(supervisor) => return Ok(supervisor),
                Err(ForkError::TimedOut) => supervisors.lock().unresponsive = true,
                Err(ForkError::Failed) => {}
            }
        }
        let [stdin, stdout, stderr] = streams.into_stdio();
        let mut command = supervisor_command(&order, &env);
        Supervisor::spawn(command.stdin(stdin).stdout(stdout).stderr(stderr))
    }
}

impl Supervisors {
    /// A permit to prepare a supervisor before it is wanted, if there are not too many.
    pub(super) fn early(&self) -> Option<SemaphorePermit<'_>> {
        self.early.try_acquire().ok()
    }

    /// Orders a supervisor, and does not wait for it.
    pub(super) fn prepare(
        &self,
        order: Order,
        env: Vec<(String, String)>,
        streams: CommandStreams,
    ) -> PreparedSupervisor<'_> {
        let pending = self.order(&order, &env, &streams);
        PreparedSupervisor { supervisors: self, order, env, streams, pending }
    }

    fn order(
        &self,
        order: &Order,
        env: &[(String, String)],
        streams: &CommandStreams,
    ) -> Option<PendingFork> {
        let mut slot = self.lock();
        if slot.unresponsive {
            return None;
        }
        if slot.server.is_none() {
            slot.server = ForkServer::start().ok();
        }
        match slot.server.as_ref()?.order(order, env, streams) {
            Ok(pending) => Some(pending),
            Err(OrderError::Unsuitable) => None,
            Err(OrderError::Ended) => {
                slot.server = None;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ServerSlot> {
        lock(&self.server)
    }
}
