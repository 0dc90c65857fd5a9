//! Blocking calls within a tokio runtime.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs blocking `work`. In a runtime with several threads, the other tasks continue meanwhile.
pub(crate) fn block<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
