//! The client's calls on the guest's network.

use bytes::Bytes;
use http::{Method, header};
use http_body_util::{BodyExt, Full};

use super::body::BodyReader;
use super::client::Client;
use super::connection::{head, read_json, target, to_json};
use super::error::ClientError;
use super::network::{NetworkPolicy, PublishRequest, Published};
use super::paths;

/// The network of the guest.
///
/// The code of an error is [`Refused`](super::Code::Refused) if the guest has no network.
impl Client {
    /// What the guest may connect to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network_policy(&self) -> Result<NetworkPolicy, ClientError> {
        self.socket.fetch(Method::GET, paths::NET_POLICY).await
    }

    /// Replaces what the guest may connect to, and returns what holds now.
    ///
    /// # Errors
    /// [`ClientError`]. The code is [`Busy`](super::Code::Busy) if the policy has another revision
    /// by now, and [`InvalidRequest`](super::Code::InvalidRequest) if a rule is not valid. Then
    /// nothing has changed.
    pub async fn set_network_policy(
        &self,
        policy: &NetworkPolicy,
    ) -> Result<NetworkPolicy, ClientError> {
        self.send_json(Method::PUT, paths::NET_POLICY, to_json(policy)?).await
    }

    /// The log of the network: a line of JSON for each attempt of the guest that has ended.
    ///
    /// # Errors
    /// [`ClientError`]. The code is [`NotFound`](super::Code::NotFound) if no log is kept. Later
    /// errors are errors of the body.
    pub async fn network_log(&self, follow: bool) -> Result<BodyReader, ClientError> {
        let target = target(paths::NET_LOG, &[("follow", &follow.to_string())]);
        let response = self.socket.request(Method::GET, &target).await?;
        Ok(BodyReader::new(response.into_body(), self.socket.clone()))
    }

    /// Publishes a port of the guest on the host: `[ADDR:]PORT:GUEST_PORT[/udp]`. With port 0, the
    /// host picks a free one.
    ///
    /// # Errors
    /// [`ClientError`]. The code is [`Refused`](super::Code::Refused) if the host cannot listen
    /// there.
    pub async fn publish(&self, spec: impl Into<String>) -> Result<Published, ClientError> {
        let request = PublishRequest { spec: spec.into() };
        self.send_json(Method::POST, paths::NET_PUBLISH, to_json(&request)?).await
    }

    async fn send_json<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: Bytes,
    ) -> Result<T, ClientError> {
        let body = Full::new(json).map_err(|never| match never {}).boxed_unsync();
        let head = head(method, path).header(header::CONTENT_TYPE, "application/json");
        read_json(self.socket.send(head, body).await?).await
    }
}
