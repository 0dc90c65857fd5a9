//! Waits for moments that may not come.

use tokio::time::Instant;

/// Completes at this moment. `None`: never.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
