//! The addresses of the service and of the guest, and the MTU between them.
//!
//! A value of these types always works: no other code checks it again.

use std::net::Ipv4Addr;

/// The address of the service.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The length of the network prefix: 169.254.0.0/16 (RFC 3927).
pub const PREFIX_LENGTH: u8 = 16;

/// The port of the service.
pub const SERVICE_PORT: u16 = 80;

/// The hardware address of the service: locally administered, with the service's address in its
/// last four bytes.
pub const SERVICE_HARDWARE_ADDRESS: [u8; 6] = [0x02, 0x00, 169, 254, 169, 254];

/// The largest IPv4 packet on the link in bytes, without the Ethernet header.
///
/// ```
/// use metaservice_nic::Mtu;
///
/// assert_eq!(Mtu::default().get(), 65520);
/// assert_eq!(Mtu::try_from(1500), Ok(Mtu::ETHERNET));
/// assert!(Mtu::try_from(575).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u16);

impl Mtu {
    /// The minimum for each IPv4 host (RFC 791): 576 bytes.
    pub const MIN: Self = Self(576);
    /// The default of a guest: 1500 bytes.
    pub const ETHERNET: Self = Self(1500);
    /// The largest that both virtio's `host_mtu` and Linux accept: 65520 bytes.
    pub const JUMBO: Self = Self(65520);
    /// The longest IPv4 packet: 65535 bytes.
    pub const MAX: Self = Self(65535);

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Mtu {
    /// [`Mtu::JUMBO`]: it has the largest effect on the speed. A guest with a smaller MTU announces
    /// it in its TCP handshakes and gets smaller segments.
    fn default() -> Self {
        Self::JUMBO
    }
}

/// An MTU below 576 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an MTU of {0} bytes is less than the 576 that every IPv4 host must take")]
pub struct InvalidMtu(pub u16);

impl TryFrom<u16> for Mtu {
    type Error = InvalidMtu;

    fn try_from(bytes: u16) -> Result<Self, InvalidMtu> {
        if bytes < Self::MIN.0 { Err(InvalidMtu(bytes)) } else { Ok(Self(bytes)) }
    }
}

/// The address that DHCP gives the guest. It is in 169.254.0.0/16, except the first and last /24,
/// which RFC 3927 (section 2.1) reserves, and is not that of the service.
///
/// ```
/// use metaservice_nic::GuestAddress;
///
/// assert_eq!(GuestAddress::default().get().to_string(), "169.254.1.2");
/// assert!(GuestAddress::try_from(std::net::Ipv4Addr::new(10, 0, 2, 15)).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestAddress(Ipv4Addr);

impl GuestAddress {
    /// The address.
    #[must_use]
    pub const fn get(self) -> Ipv4Addr {
        self.0
    }
}

impl Default for GuestAddress {
    /// 169.254.1.2.
    fn default() -> Self {
        Self(Ipv4Addr::new(169, 254, 1, 2))
    }
}

/// An address that the guest cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a free link-local address (169.254.1.0 to 169.254.254.255)")]
pub struct InvalidGuestAddress(pub Ipv4Addr);

impl TryFrom<Ipv4Addr> for GuestAddress {
    type Error = InvalidGuestAddress;

    fn try_from(address: Ipv4Addr) -> Result<Self, InvalidGuestAddress> {
        let [_, _, third, _] = address.octets();
        if address.is_link_local() && (1..=254).contains(&third) && address != SERVICE_ADDRESS {
            Ok(Self(address))
        } else {
            Err(InvalidGuestAddress(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_address_is_link_local_and_free() {
        for refused in [
            [10, 0, 0, 1],
            [169, 254, 0, 9],
            [169, 254, 255, 9],
            [169, 254, 169, 254],
            [169, 253, 1, 2],
        ] {
            assert!(GuestAddress::try_from(Ipv4Addr::from(refused)).is_err(), "{refused:?}");
        }
        for taken in [[169, 254, 1, 0], [169, 254, 254, 255], [169, 254, 169, 253]] {
            assert!(GuestAddress::try_from(Ipv4Addr::from(taken)).is_ok(), "{taken:?}");
        }
    }
}
