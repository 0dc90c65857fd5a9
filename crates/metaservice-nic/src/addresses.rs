//! Which addresses on the link are the card's, and which the guest's.

use std::net::Ipv4Addr;

use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use crate::{address::SERVICE_ADDRESS, network::Network};

/// The addresses of a link: of the service alone, or of a network that the card routes for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses(pub(crate) Option<Network>);

impl Addresses {
    /// Whether it is an address of the card.
    pub(crate) fn is_card(self, address: Ipv4Addr) -> bool {
        address == SERVICE_ADDRESS || self.is_router(address)
    }

    /// Whether it is the address of the card as a router.
    pub(crate) fn is_router(self, address: Ipv4Addr) -> bool {
        self.0.is_some_and(|network| network.router == address)
    }

    /// Whether the card answers ARP requests for it.
    ///
    /// In a network, the guest may take any address for one on its link. The card answers for all
    /// but those that the guest may take for itself: its own, and link-local ones. A probe for
    /// these (RFC 5227) finds no other owner.
    pub(crate) fn answers_for(self, address: Ipv4Addr) -> bool {
        let Some(network) = self.0 else { return address == SERVICE_ADDRESS };
        let guests = address == network.guest || address.is_link_local();
        self.is_card(address) || (!guests && !address.is_unspecified())
    }

    /// Whether the guest may send from `from` to `to`.
    ///
    /// In a network, the guest has one address. From a link-local address it reaches the service
    /// alone: guests that know no other network configure one by themselves.
    pub(crate) fn may_send(self, from: Ipv4Addr, to: Ipv4Addr) -> bool {
        let unicast = !from.is_unspecified() && !from.is_broadcast() && !from.is_multicast();
        unicast
            && !self.is_card(from)
            && self.0.is_none_or(|network| {
                from == network.guest || (to == SERVICE_ADDRESS && from.is_link_local())
            })
    }

    /// Whether the guest may have it.
    pub(crate) fn is_guests(self, address: Ipv4Addr) -> bool {
        self.may_send(address, SERVICE_ADDRESS)
    }

    /// Whether a packet to it goes through the card: it is a single host's address, and neither in
    /// the guest itself nor the service.
    pub(crate) fn is_routed(self, address: Ipv4Addr) -> bool {
        let Some(network) = self.0 else { return false };
        let link = Ipv4Cidr::new(network.router, network.prefix.min(32));
        let [first, ..] = address.octets();
        let ends = [Some(link.network().address()), link.broadcast()];
        address != SERVICE_ADDRESS
            && address != network.guest
            && !matches!(first, 0 | 127 | 224..)
            && (network.prefix > 30 || !ends.contains(&Some(address)))
    }

    /// Whether a packet to it goes to all hosts of the link.
    pub(crate) fn is_broadcast(self, address: Ipv4Addr) -> bool {
        let link = self.0.map(|network| Ipv4Cidr::new(network.router, network.prefix.min(32)));
        address.is_broadcast() || link.and_then(|link| link.broadcast()) == Some(address)
    }

    /// Whether the guest may send from this hardware address.
    pub(crate) fn may_have(self, hardware: EthernetAddress) -> bool {
        let guest = self.0.and_then(|network| network.hardware);
        guest.is_none_or(|guest| hardware.0 == guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_one_guest_and_the_card_answers_for_the_rest() {
        let addresses = Addresses(Some(Network::default()));
        for (address, answers, routed, guests) in [
            ("10.0.2.2", true, true, false),
            ("10.0.2.15", false, false, true),
            ("10.0.2.16", true, true, false),
            ("10.0.2.0", true, false, false),
            ("10.0.2.255", true, false, false),
            ("10.0.3.255", true, true, false),
            ("169.254.169.254", true, false, false),
            ("169.254.1.2", false, true, true),
            ("203.0.113.9", true, true, false),
            ("127.0.0.1", true, false, false),
            ("224.0.0.1", true, false, false),
            ("255.255.255.255", true, false, false),
            ("0.0.0.0", false, false, false),
        ] {
            let address = ip(address);
            assert_eq!(addresses.answers_for(address), answers, "{address}");
            assert_eq!(addresses.is_routed(address), routed, "{address}");
            assert_eq!(addresses.is_guests(address), guests, "{address}");
        }
        assert!(!addresses.may_send(ip("169.254.1.2"), ip("203.0.113.9")));
        assert!(addresses.may_send(ip("10.0.2.15"), ip("203.0.113.9")));
    }

    #[test]
    fn without_a_network_there_is_the_service_alone() {
        let addresses = Addresses(None);
        for (address, own) in [("169.254.169.254", true), ("10.0.2.2", false)] {
            assert_eq!(addresses.answers_for(ip(address)), own);
            assert_eq!(addresses.may_send(ip(address), SERVICE_ADDRESS), !own);
            assert!(!addresses.is_routed(ip(address)));
        }
    }

    #[test]
    fn a_hardware_address_is_the_guests_if_it_is_known() {
        let (own, other) = ([2, 0, 0, 0, 0, 1], EthernetAddress([2, 0, 0, 0, 0, 2]));
        let mut network = Network::default();
        assert!(Addresses(Some(network)).may_have(other));
        network.hardware = Some(own);
        assert!(!Addresses(Some(network)).may_have(other));
        assert!(Addresses(Some(network)).may_have(EthernetAddress(own)));
    }
}
