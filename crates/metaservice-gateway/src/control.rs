//! A handle of a running gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use metaservice_egress::audit::Totals;
use metaservice_egress::{DomainName, Policy};
use tokio::sync::mpsc;

use crate::log::Follower;
use crate::publish::{Publication, PublishError, Request};
use crate::shared::Shared;

/// Reads and changes a running gateway. It does not keep the gateway alive.
#[derive(Debug, Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Sender<Request>,
}

impl Control {
    /// What the guest may connect to.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy()
    }

    /// Changes what the guest may connect to. What is open and no longer allowed is reset at once.
    /// So is a connection whose bytes were not checked as the new policy demands.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.set_policy(policy);
    }

    /// The number of attempts that have ended, and their bytes.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// The names that the guest has addresses of, for [`Config::names`](crate::Config::names) of
    /// the gateway that its restored copy will have.
    #[must_use]
    pub fn names(&self) -> Vec<(Ipv4Addr, DomainName)> {
        self.shared.names()
    }

    /// A reader of the log, from its beginning. `None`: the gateway has no file for it.
    #[must_use]
    pub fn log(&self) -> Option<Follower> {
        self.shared.follow()
    }

    /// Publishes a port of the guest at an address of the host, until the gateway ends. Returns
    /// the address, with the port that the system has chosen if 0 was given.
    ///
    /// Dropping the future can leave the port published.
    ///
    /// # Errors
    /// [`PublishError::Bind`] if the host cannot listen there. [`PublishError::Ended`] if the
    /// gateway has ended.
    pub async fn publish(&self, publication: Publication) -> Result<SocketAddr, PublishError> {
        Request::send(&self.requests, publication).await
    }
}
