//! Replies that must reach the host before the job's result.
//!
//! The host stops its service when it has the result, and cuts the replies that are on their way.
//! The client of an `exec` whose command ended before the job would see an error. So the result
//! waits for such replies, but only for a moment: a host that does not take them must not hold up
//! the result.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long the result waits for earlier replies.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// How many replies the result waits for. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct PendingReplies(Arc<watch::Sender<usize>>);

impl Default for PendingReplies {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One reply, which is pending until this is dropped.
#[derive(Debug)]
pub(crate) struct PendingReply(Arc<watch::Sender<usize>>);

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl PendingReplies {
    pub(crate) fn begin(&self) -> PendingReply {
        self.0.send_modify(|count| *count += 1);
        PendingReply(Arc::clone(&self.0))
    }

    /// Waits until no reply is pending, but at most for [`SEND_TIMEOUT`].
    pub(crate) async fn sent(&self) {
        let mut count = self.0.subscribe();
        // The sender lives as long as `self`, and a timeout is not an error.
        let _ = timeout(SEND_TIMEOUT, count.wait_for(|count| *count == 0)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_result_waits_for_replies_but_not_for_long() {
        let replies = PendingReplies::default();
        let now = tokio::time::Instant::now();
        replies.sent().await;
        assert_eq!(now.elapsed(), Duration::ZERO);
        let (first, second) = (replies.begin(), replies.begin());
        let sending = tokio::spawn({
            let replies = replies.clone();
            async move { replies.sent().await }
        });
        drop(first);
        tokio::time::sleep(SEND_TIMEOUT / 2).await;
        assert!(!sending.is_finished());
        drop(second);
        sending.await.unwrap();
        assert_eq!(now.elapsed(), SEND_TIMEOUT / 2);
        let _kept = replies.begin();
        replies.sent().await;
        assert_eq!(now.elapsed(), SEND_TIMEOUT / 2 + SEND_TIMEOUT);
    }
}
