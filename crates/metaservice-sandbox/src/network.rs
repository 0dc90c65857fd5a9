//! The network of a job's guest, for clients of the control socket.
//!
//! Owns the policy between the attempts to start the machine, each of which has a gateway of its
//! own. What a client changes holds for all of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::stream;
use metaservice::control::{Network, NetworkError, NetworkLog, NetworkPolicy, Publishing};
use metaservice_egress::{InvalidRule, Policy, Rule, Transport};
use metaservice_gateway::{Control, Publication, PublishError};
use metaservice_private::lock;

use crate::job::Publish;

/// The network of a guest. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct GuestNetwork(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    policy: Policy,
    /// The gateway of the present attempt.
    gateway: Option<Control>,
    /// The ports of the host that lead into its guest.
    published: Vec<Published>,
}

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Published {
    address: SocketAddr,
    guest_port: u16,
    protocol: Transport,
}

impl GuestNetwork {
    pub(crate) fn new(policy: Policy) -> Self {
        Self(Arc::new(Mutex::new(State { policy, gateway: None, published: Vec::new() })))
    }

    /// The policy that a new gateway has.
    pub(crate) fn policy(&self) -> Policy {
        lock(&self.0).policy.clone()
    }

    /// Makes a gateway the present one. It gets the policy that holds now.
    pub(crate) fn attach(&self, gateway: Control) {
        let mut state = lock(&self.0);
        gateway.set_policy(state.policy.clone());
        state.gateway = Some(gateway);
        state.published.clear();
    }

    /// Opens a port of the host that leads into the guest. Returns its address.
    pub(crate) async fn open(&self, publish: Publish) -> Result<SocketAddr, PublishError> {
        let gateway = self.gateway().ok_or(PublishError::Ended)?;
        let Publish { listen, guest_port, transport } = publish;
        let address = gateway.publish(Publication::new(listen, guest_port, transport)).await?;
        lock(&self.0).published.push(Published { address, guest_port, protocol: transport });
        Ok(address)
    }

    /// The ports of the host that lead into the guest.
    pub(crate) fn published(&self) -> Vec<Published> {
        lock(&self.0).published.clone()
    }

    fn gateway(&self) -> Option<Control> {
        lock(&self.0).gateway.clone()
    }
}

impl Network for GuestNetwork {
    fn policy(&self) -> NetworkPolicy {
        let policy = self.policy();
        let texts = |rules: &[Rule]| rules.iter().map(ToString::to_string).collect();
        NetworkPolicy::new(texts(policy.allow()), texts(policy.deny()))
    }

    fn set_policy(&self, policy: &NetworkPolicy) -> Result<(), NetworkError> {
        let (allow, deny) = (rules(&policy.allow)?, rules(&policy.deny)?);
        let mut state = lock(&self.0);
        state.policy = Policy::new(allow, deny);
        if let Some(gateway) = &state.gateway {
            gateway.set_policy(state.policy.clone());
        }
        Ok(())
    }

    fn log(&self, follow: bool) -> Option<NetworkLog> {
        let follower = self.gateway()?.log()?;
        Some(Box::pin(stream::try_unfold(follower, move |mut follower| async move {
            let lines = if follow { follower.next().await? } else { follower.read()? };
            Ok(lines.map(|lines| (lines.into(), follower)))
        })))
    }

    fn publish(&self, spec: &str) -> Publishing {
        let (publish, network) = (spec.parse::<Publish>(), self.clone());
        Box::pin(async move {
            let publish = publish.map_err(|error| NetworkError::Invalid(error.to_string()))?;
            network.open(publish).await.map_err(|error| match error {
                PublishError::Bind { cause, .. } => {
                    NetworkError::Refused(format!("cannot listen on {}: {cause}", publish.listen))
                }
                _ => NetworkError::Ended,
            })
        })
    }
}

fn rules(texts: &[String]) -> Result<Vec<Rule>, NetworkError> {
    let invalid =
        |text: &String, error: InvalidRule| NetworkError::Invalid(format!("{text:?}: {error}"));
    let rule = |text: &String| text.parse::<Rule>().map_err(|error| invalid(text, error));
    texts.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> NetworkPolicy {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        NetworkPolicy::new(own(allow), own(deny))
    }

    #[test]
    fn a_wrong_rule_changes_nothing() {
        let network = GuestNetwork::new(Policy::default());
        let rules = policy(&["a.example:443", "host:80"], &["*.b.example"]);
        Network::set_policy(&network, &rules).unwrap();
        for (allow, deny) in [("c.example", "*"), ("*", "c.example")] {
            let refused = Network::set_policy(&network, &policy(&[allow], &[deny])).unwrap_err();
            assert!(matches!(refused, NetworkError::Invalid(_)), "{refused}");
            assert_eq!(Network::policy(&network), rules);
        }
    }

    #[tokio::test]
    async fn without_a_gateway_nothing_is_published_and_there_is_no_log() {
        let network = GuestNetwork::new(Policy::default());
        assert!(network.log(true).is_none());
        assert_eq!(network.publish("0:80").await, Err(NetworkError::Ended));
        assert!(matches!(network.publish("80").await, Err(NetworkError::Invalid(_))));
    }
}
