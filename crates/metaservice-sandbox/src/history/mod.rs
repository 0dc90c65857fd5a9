//! The jobs of this user on this host, running and ended: one directory for each, in one place.
//!
//! The place is `metaservice/jobs` in the user's state directory. It does not depend on `TMPDIR` or
//! on a login session, so that each process of the user finds the same jobs. A job's directory
//! appears complete, with its control socket. The process that runs the job holds a lock on a file
//! in it. The system releases the lock with the process.
//!
//! | file | content |
//! | --- | --- |
//! | `spec.json` | what was known when the job started; no values of variables |
//! | `result.json` | a [`PastJob`]; a directory without it and without a lock is of a lost job |
//! | `log`, `log.index` | the end of the log: a [`StoredLog`](metaservice::StoredLog) |
//! | `lock` | locked while the job runs |
//! | `control.sock` | the control socket, while the job runs |
//! | `messages` | what the process of a job in the background printed |
//!
//! Each start of a job removes ended jobs beyond the limits of [`Keep`]. A job that runs is never
//! removed.

mod changes;
mod claim;
mod place;
mod record;
mod recorder;
mod retention;

pub(crate) use changes::Changes;
pub use claim::ClaimError;
pub(crate) use claim::{Claim, Claimed};
pub use place::{Jobs, MESSAGES, place};
pub(crate) use record::Began;
pub use record::{NETWORK_LOG, PastArtifact, PastJob, stored_log};
pub use recorder::HistoryError;
pub(crate) use recorder::{Artifacts, Recorder};
pub use retention::Keep;
