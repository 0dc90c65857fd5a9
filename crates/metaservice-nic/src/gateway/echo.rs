//! An echo request that waits for its answer.

use std::sync::Arc;

use crate::network::{EchoRequest, Unreachable};
use crate::shared::Shared;

/// An ICMP echo request of the guest, which its owner answers or refuses.
///
/// Dropping it leaves the guest without an answer.
pub struct Echo {
    shared: Arc<Shared>,
    request: EchoRequest,
}

impl Echo {
    pub(super) fn new(shared: Arc<Shared>, request: EchoRequest) -> Self {
        Self { shared, request }
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> &EchoRequest {
        &self.request
    }

    /// Answers it, as its destination does. The answer is dropped and counted if the guest reads
    /// too slowly.
    pub fn reply(self) {
        self.shared.act(|state| state.interface.answer_echo(self.request));
    }

    /// Answers it with an ICMP error.
    pub fn unreachable(self, reason: Unreachable) {
        self.shared.act(|state| state.interface.refuse_echo(&self.request, reason));
    }
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let request = &self.request;
        formatter
            .debug_struct("Echo")
            .field("source", &request.source)
            .field("destination", &request.destination)
            .finish_non_exhaustive()
    }
}
