//! Where the machine of a job runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metaservice_qemu::Disk;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::machine::{Describer, Individual, WarmMachine};
use crate::network::GuestNetwork;

/// How long a machine may take to power off by itself.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the machine of a job is.
pub(crate) enum Place {
    /// Here: the driver starts and ends it.
    Machine {
        describer: Arc<Describer>,
        individual: Box<Individual>,
        network: GuestNetwork,
        /// A machine that waits for the job already. The first attempt takes it.
        warm: Option<Box<WarmMachine>>,
        /// The cgroup that the machine joins.
        cgroup: Option<PathBuf>,
        disk: Option<PreparedDisk>,
    },
    /// Another program starts it. It may come late, and come back: it is never lost.
    Elsewhere { _serving: AbortOnDropHandle<()>, served: CancellationToken },
}

/// A disk that the machine writes, and that is used after it.
pub(crate) struct PreparedDisk {
    pub(crate) disk: Disk,
    /// How long the machine may take to power off in order.
    pub(crate) power_off_timeout: Duration,
}

impl Place {
    /// How long the machine may take to power off. `None`: it is killed.
    pub(crate) fn power_off(&self, success: bool) -> Option<Duration> {
        match self {
            Self::Elsewhere { .. } => None,
            Self::Machine { disk: Some(disk), .. } => success.then_some(disk.power_off_timeout),
            Self::Machine { describer, .. } => {
                (!describer.plan().is_disposable()).then_some(POWER_OFF_TIMEOUT)
            }
        }
    }
}
