//! A job's machine: its plan, its network card, and the snapshots that it can start from.

mod address;
pub(crate) mod card;
mod describe;
mod image;
mod network;
mod plan;
pub mod snapshot;
mod warm;

pub use describe::{DescribeError, disk};
pub(crate) use describe::{Describer, Individual};
pub use image::{Image, ImageError, Prepared, is_name};
pub(crate) use network::{Names, SavedNetwork};
pub use plan::{Plan, PlanError, PlanSummary};
pub use warm::{WarmError, WarmKind, WarmMachine};

use std::io;
use std::path::PathBuf;

use metaservice_gateway::PublishError;
use metaservice_qemu::StartError;

use crate::job::OutputField;
use snapshot::SnapshotError;

/// Why a job's machine does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// It cannot be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// It cannot be compared with its snapshot.
    #[error(transparent)]
    Snapshot(Box<SnapshotError>),
    /// The network card cannot be made.
    #[error("cannot make the network card")]
    Card(#[source] io::Error),
    /// A port of the guest cannot be published.
    #[error("a port of the guest cannot be published")]
    Publish(#[source] PublishError),
    /// A file that the machine writes cannot be written.
    #[error("cannot write the {output} to {}", path.display())]
    Output {
        /// What the file gets.
        output: OutputField,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file that is also read is a directory's entry of another kind, such as a FIFO.
    #[error("the {output} is read again, and {} is not a plain file", path.display())]
    NotAFile {
        /// What the file gets.
        output: OutputField,
        /// What is no file.
        path: PathBuf,
    },
    /// QEMU does not start it.
    #[error(transparent)]
    Start(#[from] StartError),
}
