//! What is said to the host before the job's end is.
//!
//! The host ends its service when the job has ended, and with it every answer that is on its way.
//! An `exec` whose command ended before the job did would be reported as cut. So the job's end
//! waits for those, for a moment: a host that does not take them holds up nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long the job's end waits for the answers before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many answers are on their way that the job's end is to wait for.
#[derive(Debug, Clone)]
pub(crate) struct Partings(Arc<watch::Sender<usize>>);

impl Default for Partings {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One of them, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Parting(Arc<watch::Sender<usize>>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Partings {
    /// An answer is on its way.
    pub(crate) fn begin(&self) -> Parting {
        self.0.send_modify(|count| *count += 1);
        Parting(Arc::clone(&self.0))
    }

    /// Waits until all have been said, or a moment has passed.
    pub(crate) async fn said(&self) {
        let mut count = self.0.subscribe();
        // The sender lives as long as `self`; that time has passed is no error.
        let _ = timeout(PATIENCE, count.wait_for(|count| *count == 0)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_answers_but_not_for_long() {
        let partings = Partings::default();
        let now = tokio::time::Instant::now();
        partings.said().await;
        assert_eq!(now.elapsed(), Duration::ZERO);
        let (first, second) = (partings.begin(), partings.begin());
        let saying = tokio::spawn({
            let partings = partings.clone();
            async move { partings.said().await }
        });
        drop(first);
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(!saying.is_finished());
        drop(second);
        saying.await.unwrap();
        assert_eq!(now.elapsed(), PATIENCE / 2);
        let _kept = partings.begin();
        partings.said().await;
        assert_eq!(now.elapsed(), PATIENCE / 2 + PATIENCE);
    }
}
