//! Work that blocks, within a runtime.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that blocks, without holding up the other tasks of a runtime with several threads.
pub(crate) fn block<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
