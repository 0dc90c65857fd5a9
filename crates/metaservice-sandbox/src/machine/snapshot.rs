//! Snapshots of machines whose agent waits for a job.
//!
//! Owns how a snapshot is made, what is stored with it, and the search for the snapshot of a plan.
//!
//! A restored guest has connections to a card that no longer exists, and names that this card has
//! resolved: see `machine/network.rs`.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use metaservice::{Cloud, IdleService};
use metaservice_nic::Network;
use metaservice_qemu::{
    Exit, InUse, Machine, MachineSpec, SnapshotError as StoreError, SnapshotKey, SnapshotStore,
    StartError, StateError, SystemUuid,
};

use super::Plan;
use super::address;
use super::card::{CardParts, NetworkCard, Routes, WaitingCard};
use super::describe::{DescribeError, Describer};
use super::network::SavedNetwork;
use crate::agent::{AGENT, PLATFORM};
use crate::spec::{InvalidSize, Size};

/// How long a machine may take to boot before its snapshot is made.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// The host name of a machine without a job.
const HOSTNAME: &str = "metaservice";

/// How many of the console's last lines an error has.
pub(crate) const CONSOLE_LINES: usize = 20;

/// Why there is no snapshot, or none can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The machine cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The directory of snapshots cannot be used, or the snapshot cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network card cannot be made.
    #[error("cannot make the network card")]
    Card(#[source] io::Error),
    /// The machine does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine ended before its agent waited for a job.
    #[error("the machine ended: {}", exit.cause)]
    Ended {
        /// How it ended.
        exit: Exit,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// No agent came to wait for a job.
    #[error("no agent came to wait for a job within {}", humantime::format_duration(BOOT_TIMEOUT))]
    NoAgent {
        /// The last lines of the console.
        console: Vec<String>,
    },
    /// The limit of the cache is not a size.
    #[error("in {LIMIT_VARIABLE}")]
    Limit(#[source] InvalidSize),
    /// QEMU does not save the machine.
    #[error("cannot save the machine")]
    Save(#[from] StateError),
}

impl SnapshotError {
    /// The last lines of the machine's console, if it ran.
    #[must_use]
    pub fn console(&self) -> Option<&[String]> {
        match self {
            Self::Ended { console, .. } | Self::NoAgent { console } => Some(console),
            _ => None,
        }
    }

    /// Whether the snapshot or its directory is at fault. Anything else is wrong with a machine
    /// that boots, too.
    pub(crate) fn is_of_snapshot(&self) -> bool {
        match self {
            Self::Store(error) => !matches!(error, StoreError::Spec(_)),
            _ => false,
        }
    }
}

/// A snapshot that was found.
#[derive(Debug)]
pub(crate) struct Snapshot {
    saved: metaservice_qemu::Snapshot,
    key: SnapshotKey,
    snapshots: SnapshotStore,
    in_use: Option<InUse>,
}

impl Snapshot {
    /// The mark that the snapshot is in use, for as long as the machine runs.
    pub(crate) const fn take_mark(&mut self) -> Option<InUse> {
        self.in_use.take()
    }

    /// Finds the snapshot of a plan. Blocks.
    pub(crate) fn find(describer: &Describer) -> Result<Option<Self>, SnapshotError> {
        let key = key(describer)?;
        let snapshots = SnapshotStore::of_user()?;
        let found = snapshots.find(&key)?;
        Ok(found.map(|saved| {
            let in_use = saved.mark_in_use();
            Self { saved, key, snapshots, in_use }
        }))
    }

    /// The machine of this description, restored.
    pub(crate) fn restore(&self, spec: MachineSpec) -> MachineSpec {
        spec.restore_from(self.saved.files(), self.saved.state().to_vec())
    }

    /// What the guest's new card must know of the one that it had.
    pub(crate) fn network(&self) -> SavedNetwork {
        SavedNetwork::read(self.saved.notes())
    }

    /// Removes the snapshot: it is unusable.
    pub(crate) fn remove(&self) {
        self.snapshots.remove(&self.key);
    }
}

/// The bytes that all snapshots of the built-in guest may take, unless [`LIMIT_VARIABLE`] is set.
const LIMIT: Size = Size(4 << 30);

/// The variable that changes how many bytes all snapshots of the built-in guest may take, by
/// default 4 GiB.
pub const LIMIT_VARIABLE: &str = "METASERVICE_SNAPSHOT_LIMIT";

fn cache_limit() -> Result<u64, SnapshotError> {
    let Some(text) = std::env::var_os(LIMIT_VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(LIMIT.0);
    };
    let size = text.to_string_lossy().parse::<Size>().map_err(SnapshotError::Limit)?;
    Ok(size.0)
}

/// Whether there is a snapshot from which a machine of this plan starts. Blocks: looks for tools,
/// and may build an initramfs.
///
/// # Errors
/// When the machine cannot be described, or the snapshots cannot be read.
pub fn exists(plan: &Plan) -> Result<bool, SnapshotError> {
    if !plan.may_restore() {
        return Ok(false);
    }
    Ok(Snapshot::find(&Describer::new(Arc::new(plan.clone())))?.is_some())
}

fn key(describer: &Describer) -> Result<SnapshotKey, SnapshotError> {
    let (_, card) = UnixStream::pair().map_err(SnapshotError::Card)?;
    let key = SnapshotKey::of(&describer.describe(None, card)?)?;
    // An image that boots by itself has asked for its addresses.
    let key = key.depending_on(format!("{:?}", Network::default()).as_bytes());
    // A stock image fetches the agent while it boots.
    let image = describer.plan().image.as_ref();
    let fetches =
        describer.plan().boots_itself() && image.is_some_and(|image| image.prepared().is_none());
    Ok(if fetches { key.depending_on(AGENT) } else { key })
}

/// What came of a request for a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Made {
    /// It was made.
    Now,
    /// It was there already.
    Before,
    /// Another process makes one now, and the caller does not wait.
    Busy,
}

/// Boots a machine, and makes a snapshot when its agent waits for a job. With `wait`, it waits for
/// other processes that make one.
///
/// Cancellation: dropping the future ends the machine and leaves nothing.
///
/// # Errors
/// When the machine does not boot, or cannot be saved.
pub async fn make(plan: &Plan, wait: bool) -> Result<Made, SnapshotError> {
    let describer = Describer::new(Arc::new(plan.clone()));
    let key = crate::blocking::block(|| key(&describer))?;
    let snapshots = SnapshotStore::of_user()?.limit(cache_limit()?);
    let waiting = snapshots.clone();
    let lock = tokio::task::spawn_blocking(move || waiting.lock(wait)).await;
    let Some(lock) = lock.map_err(|error| StoreError::Io(error.into()))?? else {
        return Ok(Made::Busy);
    };
    // Not on another thread: a directory that is begun there would outlive this future.
    let Some(draft) = crate::blocking::block(|| snapshots.draft(&key, lock))? else {
        return Ok(Made::Before);
    };
    let saved = async {
        let idle = Idle::boot(&describer, |spec| spec.snapshot_to(draft.files())).await?;
        let state = idle.machine.save_state().await?;
        Ok((idle, state))
    };
    let (idle, state) = match saved.await {
        Ok(saved) => saved,
        // QEMU ends without an error if there is no room for its memory.
        Err(error) => return Err(draft.check_room().err().map_or(error, SnapshotError::from)),
    };
    let network = SavedNetwork::of(&idle.card).write();
    idle.machine.kill().await;
    crate::blocking::block(|| draft.keep(&state, &network))?;
    Ok(Made::Now)
}

/// Boots a machine until its agent waits for a job, and ends it: a check of an image.
///
/// Cancellation: dropping the future ends the machine.
///
/// # Errors
/// When no agent comes.
pub async fn check(plan: &Plan) -> Result<(), SnapshotError> {
    let describer = Describer::new(Arc::new(plan.clone()));
    let idle = Idle::boot(&describer, |spec| spec.share_devices(0)).await?;
    idle.machine.kill().await;
    Ok(())
}

/// A machine whose agent waits for a job.
struct Idle {
    machine: Machine,
    card: NetworkCard,
}

impl Idle {
    /// Boots the machine; `change` changes its description last.
    async fn boot(
        describer: &Describer,
        change: impl FnOnce(MachineSpec) -> MachineSpec,
    ) -> Result<Self, SnapshotError> {
        let plan = describer.plan();
        let cloud = plan.boots_itself().then(|| {
            // An instance without a job: it fetches the agent.
            address::add_to(Cloud::new(HOSTNAME), address::of(plan))
        });
        let idle_service = match &cloud {
            Some(cloud) => IdleService::cloud(cloud, PLATFORM, AGENT),
            None => IdleService::new(),
        };
        let serving = idle_service.clone();
        let serve = |listener| async move { match serving.serve(listener).await {} };
        let (card, guest) =
            WaitingCard::attach(CardParts::default()).map_err(SnapshotError::Card)?;
        let card = card.open(Routes::default(), serve);
        let mut spec = crate::blocking::block(|| describer.describe(None, guest))?;
        if let Some(cloud) = &cloud {
            spec = spec.uuid(SystemUuid::from(cloud.system_uuid()));
        }
        let machine = Machine::start(change(spec)).await?;
        let console = || machine.console().tail(CONSOLE_LINES);
        tokio::select! {
            waiting = tokio::time::timeout(BOOT_TIMEOUT, idle_service.waiting()) => {
                waiting.map_err(|_| SnapshotError::NoAgent { console: console() })?;
            }
            exit = machine.wait() => {
                return Err(SnapshotError::Ended { exit, console: console() });
            }
        }
        Ok(Self { machine, card })
    }
}
