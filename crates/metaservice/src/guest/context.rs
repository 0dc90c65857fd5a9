//! What the handlers of the guest's requests share.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::guest::reception::Reception;
use crate::job::state::Job;

/// The job, and what only the guest's side of the service needs.
pub(crate) struct GuestContext {
    pub(crate) job: Arc<Job>,
    /// Names that the service has in requests' `Host` headers, in lower case.
    pub(crate) host_names: BTreeSet<String>,
    /// Whether extensions of the protocol are announced to agents.
    pub(crate) extensions: bool,
    pub(crate) reception: Reception,
    /// The host name that a machine gets when it is restored for this job.
    pub(crate) hostname: Option<String>,
    /// One permit for each connection that may read with a large buffer.
    pub(crate) wide: Semaphore,
}
