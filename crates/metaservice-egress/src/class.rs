//! What kind of network an address belongs to.
//!
//! The source is the special-purpose address registries of IANA (RFC 6890 and its updates). An IPv6
//! address that contains an IPv4 address has the class of that: a translator would deliver it
//! there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of network an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AddressClass {
    /// An address of the internet.
    Public,
    /// This host, or no address: 0.0.0.0/8, 127.0.0.0/8, `::`, `::1`.
    Loopback,
    /// A private network: RFC 1918, unique local addresses (RFC 4193).
    Private,
    /// A network without a router: 169.254.0.0/16, `fe80::/10`. Metadata services of clouds are
    /// here.
    LinkLocal,
    /// The network between a provider and its customers: 100.64.0.0/10 (RFC 6598).
    SharedAddress,
    /// Groups and broadcasts: 224.0.0.0/4, 255.255.255.255, `ff00::/8`.
    Multicast,
    /// A metadata service of a cloud outside of the link-local addresses.
    Metadata,
    /// A public address that this host itself has: see [`Peer`](crate::Peer).
    Own,
    /// Everything else that is not routed on the internet, or that a tunnel or a translator of IPv4
    /// would deliver to an address that cannot be seen here.
    Reserved,
}

impl AddressClass {
    /// The class of an address.
    ///
    /// ```
    /// use metaservice_egress::AddressClass;
    ///
    /// let class = |text: &str| AddressClass::of(text.parse().unwrap());
    /// assert_eq!(class("1.1.1.1"), AddressClass::Public);
    /// assert_eq!(class("::ffff:127.0.0.1"), AddressClass::Loopback);
    /// assert_eq!(class("64:ff9b::a9fe:a9fe"), AddressClass::LinkLocal);
    /// ```
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// Whether this is the class of the internet.
    #[must_use]
    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

fn of_v4(address: Ipv4Addr) -> AddressClass {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        (0 | 127, ..) => AddressClass::Loopback,
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => AddressClass::Private,
        (169, 254, ..) => AddressClass::LinkLocal,
        // A metadata service that is reached through the shared address space.
        (100, 100, 100, 200) => AddressClass::Metadata,
        (100, 64..=127, ..) => AddressClass::SharedAddress,
        // The internal address of a cloud's services for its machines.
        (168, 63, 129, 16) => AddressClass::Metadata,
        (224..=239, ..) | (255, 255, 255, 255) => AddressClass::Multicast,
        // Protocol assignments (RFC 6890) and the anycast of 6to4 relays (RFC 7526).
        (192, 0, 0, _) | (192, 88, 99, _) => AddressClass::Reserved,
        // Documentation (RFC 5737) and benchmarks (RFC 2544).
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) | (198, 18..=19, ..) => {
            AddressClass::Reserved
        }
        (240..=255, ..) => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    if let Some(inner) = embedded(address) {
        return of_v4(inner);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => AddressClass::Loopback,
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => AddressClass::Metadata,
        [0xfc00..=0xfdff, ..] => AddressClass::Private,
        // Site-local addresses are deprecated, and still a private network (RFC 3879).
        [0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        // Protocol assignments, with Teredo and ORCHID (RFC 6890); documentation (RFC 3849).
        [0x2001, 0x0000..=0x01ff, ..] | [0x2001, 0x0db8, ..] => AddressClass::Reserved,
        // Documentation (RFC 9637).
        [0x3fff, 0x0000..=0x0fff, ..] => AddressClass::Reserved,
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

/// The IPv4 address inside of an IPv6 address that a translator or tunnel would use.
pub(crate) fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let at = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    match address.segments() {
        // IPv4-mapped (RFC 4291), NAT64 with the well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x0064, 0xff9b, 0, 0, 0, 0, ..] => Some(at(12)),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(at(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(text: &str) -> AddressClass {
        AddressClass::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_have_the_classes_of_the_registries() {
        use AddressClass::*;
        for (expected, addresses) in [
            (Public, &["1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1"][..]),
            (Loopback, &["127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "::1", "::"]),
            (Private, &["10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "fd12::1"]),
            (Private, &["fec0::1"]),
            (LinkLocal, &["169.254.169.254", "fe80::1", "febf::1"]),
            (SharedAddress, &["100.64.0.1", "100.127.255.255"]),
            (Multicast, &["224.0.0.1", "239.1.1.1", "255.255.255.255", "ff02::1"]),
            (Metadata, &["100.100.100.200", "168.63.129.16", "fd00:ec2::254"]),
            (Reserved, &["192.0.2.1", "198.18.0.1", "198.19.255.255", "240.0.0.1", "192.88.99.1"]),
            (Reserved, &["2001:db8::1", "2001::1", "100::1", "4000::1", "3fff::1"]),
        ] {
            for address in addresses {
                assert_eq!(class(address), expected, "{address}");
            }
        }
    }

    #[test]
    fn an_embedded_address_decides() {
        for form in ["::ffff:", "64:ff9b::"] {
            assert_eq!(class(&format!("{form}10.0.0.1")), AddressClass::Private, "{form}");
            assert_eq!(class(&format!("{form}169.254.169.254")), AddressClass::LinkLocal, "{form}");
        }
        assert_eq!(class("2002:7f00:1::1"), AddressClass::Loopback);
        assert_eq!(class("2002:a9fe:a9fe::"), AddressClass::LinkLocal);
        assert_eq!(class("64:ff9b::1.1.1.1"), AddressClass::Public);
        // IPv4-compatible, IPv4-translated, NAT64 with a local prefix: not on the internet.
        for form in ["::", "::ffff:0:", "64:ff9b:1::"] {
            assert_eq!(class(&format!("{form}1.1.1.1")), AddressClass::Reserved, "{form}");
        }
    }

    proptest! {
        #[test]
        fn no_form_of_an_address_is_better_than_itself(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let plain = AddressClass::of(IpAddr::V4(address));
            let mapped = AddressClass::of(IpAddr::V6(address.to_ipv6_mapped()));
            prop_assert_eq!(plain, mapped);
        }
    }
}
