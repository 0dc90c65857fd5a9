//! Machines that are restored before there is a job for them.
//!
//! The agent of such a machine has noticed that it was restored, and has asked for a job. Nothing
//! answers it until a job takes the machine.

use std::sync::Arc;
use std::time::Duration;

use metaservice_nic::Limits;
use metaservice_qemu::{Accelerator, Exit, InUse, Machine, StartError};

use super::Plan;
use super::card::{CardParts, WaitingCard};
use super::describe::{DescribeError, Describer};
use super::network::Names;
use super::snapshot::{CONSOLE_LINES, Snapshot, SnapshotError};
use crate::blocking::block;
use crate::job::Job;

/// How long the agent of a restored machine may take to ask for a job.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// Which jobs a warm machine fits: those of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WarmKind {
    /// The digest of the image. `None`: the built-in guest.
    image: Option<String>,
    cpus: u32,
    memory: u64,
    accelerator: &'static str,
}

impl WarmKind {
    /// The kind of machine that this job can take over. `None`: its machine is not the same for all
    /// jobs, because it has a directory of the host or limits of its own card, say.
    #[must_use]
    pub fn of(job: &Job, plan: &Plan) -> Option<Self> {
        let is_plain = plan.may_restore()
            && plan.shares().next().is_none()
            && plan.hardware.pcap.is_none()
            && job.limits.card == Limits::default();
        if !is_plain {
            return None;
        }
        let stored = plan.image.as_ref().and_then(|image| image.stored.as_ref());
        Some(Self {
            image: stored.map(|image| image.digest.to_string()),
            cpus: plan.hardware.cpus.count(),
            memory: plan.hardware.memory.mebibytes() << 20,
            accelerator: match plan.hardware.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg",
                _ => "auto",
            },
        })
    }
}

/// Why there is no warm machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WarmError {
    /// The machine is not the same for all jobs.
    #[error("such a machine cannot wait for a job: it is not the same for all jobs")]
    NotPlain,
    /// There is no snapshot of it.
    #[error("there is no snapshot of such a machine")]
    NoSnapshot,
    /// The snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The machine cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It ended before its agent asked for a job.
    #[error("the machine ended: {}", .0.cause)]
    Ended(Exit),
    /// Its agent does not ask for a job.
    #[error("no agent asked for a job within {}", humantime::format_duration(ASK_TIMEOUT))]
    Silent {
        /// The last lines of the console.
        console: Vec<String>,
    },
}

/// A machine that runs, and whose agent waits for a job. Dropping it ends the machine.
///
/// ```no_run
/// use metaservice_sandbox::Sandbox;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let warm = Sandbox::builder().command(["true"]).prepare().await?.warm_up().await?;
/// let next = Sandbox::builder().command(["uname", "-a"]).prepare().await?;
/// let mut sandbox = next.warm(warm).launch().await?;
/// println!("{}", sandbox.wait().await.status());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WarmMachine {
    kind: WarmKind,
    machine: Machine,
    card: WaitingCard,
    names: Names,
    in_use: Option<InUse>,
}

impl WarmMachine {
    /// Restores a machine of this kind and plan. Completes when its agent waits.
    pub(crate) async fn start(kind: WarmKind, plan: Plan) -> Result<Self, WarmError> {
        let describer = Describer::new(Arc::new(plan));
        let mut snapshot = block(|| Snapshot::find(&describer))?.ok_or(WarmError::NoSnapshot)?;
        let (saved, in_use) = (snapshot.network(), snapshot.take_mark());
        let parts = CardParts { stale: saved.connections, ..CardParts::default() };
        let (mut card, guest) = WaitingCard::attach(parts).map_err(SnapshotError::Card)?;
        let spec = block(|| describer.describe(None, guest))?;
        let machine = Machine::start(snapshot.restore(describer.share(spec))).await?;
        describer.forget();
        tokio::select! {
            asked = tokio::time::timeout(ASK_TIMEOUT, card.connected()) => {
                asked.map_err(|_| {
                    WarmError::Silent { console: machine.console().tail(CONSOLE_LINES) }
                })?;
            }
            exit = machine.wait() => return Err(WarmError::Ended(exit)),
        }
        Ok(Self { kind, machine, card, names: saved.names, in_use })
    }

    /// The jobs that it fits.
    #[must_use]
    pub const fn kind(&self) -> &WarmKind {
        &self.kind
    }

    /// The process id of QEMU.
    #[must_use]
    pub const fn process_id(&self) -> u32 {
        self.machine.process_id()
    }

    /// Completes when the machine has ended: by itself, or because this value was dropped.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = self.machine.wait();
        async move {
            ended.await;
        }
    }

    pub(crate) fn into_parts(self) -> (Machine, WaitingCard, Names, Option<InUse>) {
        let Self { machine, card, names, in_use, .. } = self;
        (machine, card, names, in_use)
    }
}
