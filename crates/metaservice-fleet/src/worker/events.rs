//! Where a worker reports to.

use tokio::sync::mpsc;

use super::types::Event;
use crate::metrics::Metrics;

/// Where a worker reports to: a channel, and metrics if there are some. Clones report to the same.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::UnboundedSender<Event>,
    metrics: Option<Metrics>,
}

impl From<mpsc::UnboundedSender<Event>> for Events {
    fn from(sender: mpsc::UnboundedSender<Event>) -> Self {
        Self { sender, metrics: None }
    }
}

impl Events {
    /// Counts the events, and the steps of the queue, in these metrics.
    #[must_use]
    pub fn counted(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    pub(super) fn tell(&self, event: Event) {
        if let Some(metrics) = &self.metrics {
            metrics.event(&event);
        }
        // The worker's user may listen no more.
        let _ = self.sender.send(event);
    }
}
