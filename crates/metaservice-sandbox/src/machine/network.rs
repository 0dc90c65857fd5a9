//! What is stored with a snapshot of the network that its guest had.
//!
//! A restored guest has connections to a card that no longer exists. Their addresses and sequence
//! numbers are stored. The new card resets these connections first: from that, the agent learns
//! that it was restored. The guest may also remember the addresses of names. The new gateway gives
//! these names the same addresses.

use std::net::Ipv4Addr;

use metaservice_egress::DomainName;
use metaservice_nic::StaleConnection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::card::NetworkCard;

/// The addresses of the names that a guest has resolved.
pub(crate) type Names = Vec<(Ipv4Addr, DomainName)>;

/// The network of a guest when its snapshot was made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedNetwork {
    pub(crate) connections: Vec<StaleConnection>,
    pub(crate) names: Names,
}

impl SavedNetwork {
    /// The network of a machine that is being saved.
    pub(super) fn of(card: &NetworkCard) -> Self {
        Self { connections: card.observer().connections(), names: card.gateway().names() }
    }

    /// As notes that are stored with a snapshot.
    pub(super) fn write(&self) -> Value {
        let name = |(address, name): &(Ipv4Addr, DomainName)| (*address, name.to_string());
        serde_json::json!(Stored {
            connections: self.connections.iter().map(StoredConnection::of).collect(),
            names: self.names.iter().map(name).collect(),
        })
    }

    /// Reads such notes. What is not valid is left out: the guest asks again.
    pub(super) fn read(notes: &Value) -> Self {
        let stored = Stored::deserialize(notes).unwrap_or_default();
        let name = |(address, name): (Ipv4Addr, String)| Some((address, name.parse().ok()?));
        Self {
            connections: stored.connections.into_iter().map(StoredConnection::get).collect(),
            names: stored.names.into_iter().filter_map(name).collect(),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    connections: Vec<StoredConnection>,
    names: Vec<(Ipv4Addr, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredConnection {
    hardware: [u8; 6],
    peer: Ipv4Addr,
    peer_port: u16,
    address: Ipv4Addr,
    port: u16,
    expected: u32,
}

impl StoredConnection {
    fn of(connection: &StaleConnection) -> Self {
        let StaleConnection { hardware, peer, peer_port, address, port, expected } = *connection;
        Self { hardware, peer, peer_port, address, port, expected }
    }

    fn get(self) -> StaleConnection {
        let Self { hardware, peer, peer_port, address, port, expected } = self;
        StaleConnection { hardware, peer, peer_port, address, port, expected }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_network_is_read_as_it_was_written() {
        let connection = StaleConnection {
            hardware: [2, 0, 0, 0, 0, 255],
            peer: [10, 0, 2, 15].into(),
            peer_port: 40000,
            address: [203, 0, 113, 9].into(),
            port: 80,
            expected: u32::MAX,
        };
        let names = vec![([198, 18, 0, 1].into(), "a.example".parse().unwrap())];
        let network = SavedNetwork { connections: vec![connection], names };
        assert_eq!(SavedNetwork::read(&network.write()), network);
        for other in [json!(null), json!([]), json!({ "connections": [{ "peer": "a" }] })] {
            assert_eq!(SavedNetwork::read(&other), SavedNetwork::default(), "{other}");
        }
    }
}
