//! The hardware address of a machine's network card.

use metaservice::{Cloud, CloudCard};
use metaservice_nic::Network;
use metaservice_qemu::MacAddress;

use super::Plan;

/// The address of each machine that can have a snapshot, and of each machine of a stored image,
/// which may have been set up for it. Such a machine is alone on its wire.
const FIXED: [u8; 6] = [0x52, 0x54, 0, 169, 254, 2];

/// The address of the machine of a job.
pub(super) fn of(plan: &Plan) -> MacAddress {
    let stored = plan.image.as_ref().is_some_and(|image| image.stored.is_some());
    if stored { fixed() } else { MacAddress::random() }
}

/// The address of a machine that has no job.
pub(super) fn fixed() -> MacAddress {
    // It is a unicast address, which a test holds.
    MacAddress::new(FIXED).unwrap_or_else(|_| MacAddress::random())
}

/// Adds the card to what cloud-init is served. DHCP gives it its address.
pub(super) fn add_to(cloud: Cloud, mac: MacAddress) -> Cloud {
    cloud.card(CloudCard { mac: mac.bytes(), address: Some(Network::default().guest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_address_is_that_of_a_card() {
        assert_eq!(fixed().bytes(), FIXED);
    }
}
