//! What a card is made with: addresses, MTU, ports and every bound, validated.
//!
//! It refuses values that cannot work (an MTU below the IPv4 minimum, a guest address outside
//! of the link-local network) when they are made, so that nothing below checks them again.

use std::net::Ipv4Addr;

use crate::orphan::Orphan;
use crate::pcap::Pcap;

/// The address at which the card answers.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The length of the network prefix: 169.254.0.0/16 (RFC 3927).
pub const PREFIX_LENGTH: u8 = 16;

/// The port of the service.
pub const SERVICE_PORT: u16 = 80;

/// The hardware address at which the card answers: locally administered, and the service's
/// address in its last four bytes.
pub const SERVICE_HARDWARE_ADDRESS: [u8; 6] = [0x02, 0x00, 169, 254, 169, 254];

/// How many bytes one IPv4 packet may have on the wire, without the Ethernet header.
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
    /// The least that every IPv4 host takes (RFC 791): 576 bytes.
    pub const MIN: Self = Self(576);
    /// What a guest has that was not told otherwise: 1500 bytes.
    pub const ETHERNET: Self = Self(1500);
    /// The largest that virtio's `host_mtu` and Linux agree on: 65520 bytes.
    pub const JUMBO: Self = Self(65520);
    /// The longest IPv4 packet there is: 65535 bytes.
    pub const MAX: Self = Self(65535);

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Mtu {
    /// [`Mtu::JUMBO`]: it is the largest factor in the speed of the wire. A guest that has a
    /// smaller MTU says so in its TCP handshakes and gets smaller segments.
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

/// The address that DHCP gives the guest: in 169.254.0.0/16, not in its first or last /24
/// (RFC 3927, section 2.1, reserves both), and not the service's own.
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
    /// The address itself.
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

/// A way out of the link-local network that DHCP tells a networked guest of.
///
/// The card itself forwards nothing: this is for a guest in which something else on the same
/// segment does (a bridge to a second card).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The default router.
    pub router: Ipv4Addr,
    /// The DNS servers; the first [`Gateway::MAX_RESOLVERS`] are told.
    pub resolvers: Vec<Ipv4Addr>,
}

impl Gateway {
    /// How many DNS servers an offer has room for.
    pub const MAX_RESOLVERS: usize = 8;
}

/// The bounds on what one guest can make the host hold.
///
/// Buffers belong to connections whose handshake is complete. One gets its full buffers while the
/// total allows, and smaller ones when many are open: never less than 64 KiB to receive and 16 KiB to
/// send. Where there is no room for that, it waits for it: the guest repeats what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections whose handshake is complete, in any state, those that nobody holds any more but that still deliver
    /// included. A SYN beyond is answered with a reset.
    pub connections: usize,
    /// Handshakes that are not complete. A SYN beyond displaces the oldest. Each takes some hundred
    /// bytes, and ends after half a minute.
    pub half_open: usize,
    /// Bytes of buffers of all connections together. Where it is less than 80 KiB for each
    /// of `connections`, it is the stricter bound on their number.
    pub buffers: usize,
    /// The largest receive buffer, and so the largest window, of one connection in bytes.
    pub receive_buffer: usize,
    /// The largest send buffer of one connection in bytes.
    pub send_buffer: usize,
    /// Frames that the guest may send in a second, on average over a tenth of one. While it has
    /// sent more, none is read; none is lost.
    pub frames: u32,
}

impl Default for Limits {
    /// 1024 connections, and 1024 handshakes; 48 MiB in all, 1 MiB to receive and 2 MiB to send
    /// for each at most while there are few; 1,000,000 frames a second.
    fn default() -> Self {
        Self {
            connections: 1024,
            half_open: 1024,
            buffers: 48 << 20,
            receive_buffer: 1 << 20,
            send_buffer: 2 << 20,
            frames: 1_000_000,
        }
    }
}

/// Everything that a card is made with.
///
/// ```
/// use metaservice_nic::{Config, Mtu};
///
/// let config = Config { mtu: Mtu::ETHERNET, ..Config::default() };
/// assert_eq!(config.ports, [80]);
/// ```
#[derive(Debug)]
pub struct Config {
    /// The MTU of the wire, which DHCP tells the guest (option 26).
    pub mtu: Mtu,
    /// The address that DHCP gives the guest.
    pub guest_address: GuestAddress,
    /// The way out for a networked guest; `None` offers neither a default route nor DNS.
    pub gateway: Option<Gateway>,
    /// The TCP ports at which connections are accepted. Others are refused.
    pub ports: Vec<u16>,
    /// What one guest can make the host hold.
    pub limits: Limits,
    /// Where a copy of every frame goes.
    pub pcap: Option<Pcap>,
    /// Connections that the guest has open with another card than this one, which it had when
    /// its state was saved: they are reset first of all, so that it learns at once.
    pub orphans: Vec<Orphan>,
}

impl Default for Config {
    /// The guest is 169.254.1.2, the service listens at port 80, the MTU is 65520.
    fn default() -> Self {
        Self {
            mtu: Mtu::default(),
            guest_address: GuestAddress::default(),
            gateway: None,
            ports: vec![SERVICE_PORT],
            limits: Limits::default(),
            pcap: None,
            orphans: Vec::new(),
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
