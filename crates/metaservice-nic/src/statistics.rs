//! The statistics of a card.

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Shorter than an Ethernet header.
    Truncated,
    /// Longer than the MTU allows.
    Oversized,
    /// From a multicast address, or from the service's own address. With a
    /// [`Network`](crate::Network): from another address than the guest's, or from another hardware
    /// address, if the guest's is known.
    InvalidSource,
    /// To another hardware address than the service's. To another IPv4 address, or with a
    /// [`Network`](crate::Network), to one that is not that of a single host elsewhere.
    ForeignDestination,
    /// IPv6, which is not supported.
    Ipv6,
    /// Neither ARP nor IPv4 nor IPv6. Through the card: neither TCP nor UDP nor an ICMP echo
    /// request.
    OtherProtocol,
    /// ARP with invalid content.
    MalformedArp,
    /// IPv4 with an invalid header.
    MalformedIpv4,
    /// A fragment of an IPv4 packet. No current TCP sends fragments, and a datagram fits into the
    /// MTU of the link.
    Fragment,
    /// TCP with an invalid header.
    MalformedTcp,
    /// DHCP with invalid content.
    MalformedDhcp,
    /// UDP with an invalid header or checksum.
    MalformedUdp,
    /// ICMP with an invalid header or checksum.
    MalformedIcmp,
    /// IPv4 with options, in a [`Network`](crate::Network): they can contain a route.
    Options,
    /// A packet that the owner of the [`Gateway`](crate::Gateway) did not take in time.
    NotTaken,
    /// A packet for the guest without room in the queue, because the guest does not read, or larger
    /// than the MTU.
    NoRoom,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::Truncated,
        Self::Oversized,
        Self::InvalidSource,
        Self::ForeignDestination,
        Self::Ipv6,
        Self::OtherProtocol,
        Self::MalformedArp,
        Self::MalformedIpv4,
        Self::Fragment,
        Self::MalformedTcp,
        Self::MalformedDhcp,
        Self::MalformedUdp,
        Self::MalformedIcmp,
        Self::Options,
        Self::NotTaken,
        Self::NoRoom,
    ];
}

/// Dropped frames by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// The number for a reason.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The total number.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    pub(crate) fn set(&mut self, reason: DropReason, count: u64) {
        self.0[reason as usize] = count;
    }
}

/// The statistics of a card since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Frames from the guest, also dropped ones.
    pub frames_received: u64,
    /// Their bytes, without the length prefixes.
    pub bytes_received: u64,
    /// Frames queued for the guest.
    pub frames_sent: u64,
    /// Their bytes, without the length prefixes.
    pub bytes_sent: u64,
    /// Frames that were dropped.
    pub dropped: Dropped,
    /// ARP requests that were answered.
    pub arp_replies: u64,
    /// DHCP messages that were answered.
    pub dhcp_replies: u64,
    /// Connections whose handshake was completed.
    pub connections: u64,
    /// Current connections and handshakes, in any state.
    pub open_connections: usize,
    /// The largest number of them at one time.
    pub peak_connections: usize,
    /// The bytes of the buffers of all connections, and of ended ones that are kept for the next.
    pub buffers: usize,
    /// SYNs that were answered with a reset because a [limit](crate::Limits) was reached.
    pub refused: u64,
    /// Handshakes that a newer one displaced.
    pub displaced: u64,
    /// Handshakes that the guest did not complete in time.
    pub handshakes_expired: u64,
    /// Connections that the guest reset.
    pub resets: u64,
    /// Dropped connections whose last data the guest never took.
    pub abandoned: u64,
}
