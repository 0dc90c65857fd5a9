//! The hardware addresses of a machine's network cards.

use metaservice::{Cloud, CloudCard};
use metaservice_nic::GuestAddress;
use metaservice_qemu::{MacAddress, Network};

use super::Plan;

/// The addresses of each machine that can have a snapshot, and of each machine of a stored image,
/// which may have been set up for them. Such a machine is alone on its wire.
const CARD: [u8; 6] = [0x52, 0x54, 0, 169, 254, 2];
const OUTSIDE: [u8; 6] = [0x52, 0x54, 0, 169, 254, 3];

/// The hardware addresses of one machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// The card to the service.
    pub(crate) card: MacAddress,
    /// The card to the user network, if there is one.
    pub(crate) outside: Option<MacAddress>,
}

impl Addresses {
    pub(crate) fn of(plan: &Plan) -> Self {
        let stored = plan.image.as_ref().is_some_and(|image| image.stored.is_some());
        let address = |fixed| if stored { fixed_address(fixed) } else { MacAddress::random() };
        let outside = plan.hardware.network == Network::User;
        Self { card: address(CARD), outside: outside.then(|| address(OUTSIDE)) }
    }

    /// The addresses of a machine that has no job.
    pub(crate) fn without_job() -> Self {
        Self { card: fixed_address(CARD), outside: None }
    }

    /// Adds the cards to what cloud-init is served.
    pub(crate) fn add_to(&self, cloud: Cloud) -> Cloud {
        let address = Some(GuestAddress::default().get());
        let cloud = cloud.card(CloudCard { mac: self.card.bytes(), address });
        match self.outside {
            Some(mac) => cloud.card(CloudCard { mac: mac.bytes(), address: None }),
            None => cloud,
        }
    }
}

fn fixed_address(bytes: [u8; 6]) -> MacAddress {
    // Both are unicast addresses, which a test holds.
    MacAddress::new(bytes).unwrap_or_else(|_| MacAddress::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_addresses_are_those_of_cards() {
        for bytes in [CARD, OUTSIDE] {
            assert_eq!(fixed_address(bytes).bytes(), bytes);
        }
    }
}
