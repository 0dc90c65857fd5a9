//! The connection to NATS: its buckets and streams.
//!
//! | on the server | subjects | content |
//! | --- | --- | --- |
//! | bucket `ms_jobs` | `job.ID.STEP` | the steps of all jobs; each key is taken once |
//! | bucket `ms_jobs` | `job.ID.cancel` | the cancellation of a job by a client |
//! | bucket `ms_leases` | `lease.WORKER` | the last renewal of each worker |
//! | bucket `ms_tenants` | `tenant.NAME` | the limits of each tenant that has some |
//! | stream `ms_logs` | `ms.log.ID.ATTEMPT` | the logs, in chunks |
//! | object store `ms_files` | `ID.ATTEMPT.NUMBER` | artifacts |
//! | no stream | `ms.worker.WORKER.drain` | requests to a worker |
//! | no stream | `ms.open.ID.ATTEMPT.NAME` | [connections](crate::tunnel) to a job |

mod calls;
mod cause;
mod connection;
mod denial;
mod election;
mod error;
mod files;
mod follow;
mod keys;
mod left_parts;
mod messages;
mod probe;
mod prune;
mod reader;
mod tenants;
mod waiting;
mod watch;

pub use calls::{Cancelled, Submitted, Written};
pub use cause::Cause;
pub use connection::{Queue, Settings};
pub use denial::{Access, Denied};
pub use error::{
    CancelError, ConnectError, DrainError, FetchError, LimitError, PruneError, ReadError,
    RoomError, ServerError, SubmitError, WriteError,
};
pub use follow::Follow;
pub(crate) use keys::{drain_subject, log_name, object_name};
pub use left_parts::LEFT_AFTER;
pub use reader::LogReader;
pub use waiting::Waiting;
pub(crate) use watch::HeldLease;
pub use watch::{Leases, Limits, Steps, StoredStep};
#[cfg(feature = "fuzzing")]
pub(crate) use {
    denial::is_denial,
    watch::{stored_limits, stored_renewal, stored_step},
};
