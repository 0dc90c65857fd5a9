//! The network of a job's guest: what the serving process offers, and what requests carry.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::Stream;
use metaservice_private::lock;
use serde::{Deserialize, Serialize};

/// The rules of a guest's network, as text. A rule that denies wins.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Rules that allow.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Rules that deny.
    #[serde(default)]
    pub deny: Vec<String>,
    /// How often the policy was changed. A change with another number is refused, because another
    /// client was faster. A change without a number replaces each policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl NetworkPolicy {
    /// A policy of these rules.
    #[must_use]
    pub fn new(allow: Vec<String>, deny: Vec<String>) -> Self {
        Self { allow, deny, revision: None }
    }
}

/// A port to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PublishRequest {
    /// `[ADDR:]PORT:GUEST_PORT[/udp]`. With port 0, the host picks a free one.
    pub(super) spec: String,
}

/// A published port.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Published {
    /// The address of the host, with the port.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
}

/// Why the network of a guest does not do what a client asks for. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The request is wrong: a rule is none, for example.
    #[error("{0}")]
    Invalid(String),
    /// The host cannot do it: it cannot listen at the address, for example.
    #[error("{0}")]
    Refused(String),
    /// The network has ended.
    #[error("the network of the guest has ended")]
    Ended,
}

/// Lines of the log of a network, in pieces.
pub type NetworkLog = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// A port that is being published.
pub type Publishing = Pin<Box<dyn Future<Output = Result<SocketAddr, NetworkError>> + Send>>;

/// The network of a job's guest, as the process that serves the job offers it to clients.
pub trait Network: Send + Sync {
    /// The rules that hold now. The revision is ignored.
    fn policy(&self) -> NetworkPolicy;

    /// Replaces the rules, and cuts what is no longer allowed. Must not wait.
    ///
    /// # Errors
    /// [`NetworkError`]. Then the rules are what they were.
    fn set_policy(&self, policy: &NetworkPolicy) -> Result<(), NetworkError>;

    /// The lines of the log: complete lines of JSON, from the first one. With `follow`, it ends
    /// with the network. `None`: no log is kept.
    fn log(&self, follow: bool) -> Option<NetworkLog>;

    /// Publishes a port, `[ADDR:]PORT:GUEST_PORT[/udp]`, for as long as the network lives.
    fn publish(&self, spec: &str) -> Publishing;
}

/// A [`Network`] for the [`Description`](super::Description) of a job. Clones are the same one.
#[derive(Clone)]
pub struct NetworkHandle(Arc<Shared>);

struct Shared {
    network: Box<dyn Network>,
    /// How often the policy was changed.
    revision: Mutex<u64>,
}

impl NetworkHandle {
    /// A handle of this network.
    pub fn new(network: impl Network + 'static) -> Self {
        Self(Arc::new(Shared { network: Box::new(network), revision: Mutex::new(0) }))
    }

    pub(super) fn network(&self) -> &dyn Network {
        &*self.0.network
    }

    pub(super) fn policy(&self) -> NetworkPolicy {
        let revision = lock(&self.0.revision);
        NetworkPolicy { revision: Some(*revision), ..self.network().policy() }
    }

    /// Replaces the policy. `None`: it is not the one that the client has seen.
    pub(super) fn set_policy(
        &self,
        policy: &NetworkPolicy,
    ) -> Option<Result<NetworkPolicy, NetworkError>> {
        let mut revision = lock(&self.0.revision);
        if policy.revision.is_some_and(|seen| seen != *revision) {
            return None;
        }
        Some(self.network().set_policy(policy).map(|()| {
            *revision += 1;
            NetworkPolicy { revision: Some(*revision), ..self.network().policy() }
        }))
    }
}

impl fmt::Debug for NetworkHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NetworkHandle").finish_non_exhaustive()
    }
}
