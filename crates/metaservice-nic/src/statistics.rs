//! What the card has seen and done, in numbers.

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Shorter than an Ethernet header.
    Truncated,
    /// Longer than the MTU allows.
    Oversized,
    /// From a hardware or IPv4 address that no single host has, or from the card's own.
    InvalidSource,
    /// Not for the service: another hardware or IPv4 address.
    ForeignDestination,
    /// IPv6, which the card does not speak.
    Ipv6,
    /// Neither ARP nor IPv4 nor IPv6.
    OtherProtocol,
    /// ARP that is not understood.
    MalformedArp,
    /// IPv4 with a broken header.
    MalformedIpv4,
    /// A fragment of an IPv4 packet, which no TCP of today sends.
    Fragment,
    /// TCP with a broken header.
    MalformedTcp,
    /// DHCP, or the UDP around it, that is not understood.
    MalformedDhcp,
    /// A reply for which there was no room, as the guest takes no frames.
    NoRoom,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
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
        Self::NoRoom,
    ];
}

/// Dropped frames by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// How many for this reason.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many in all.
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

/// What the card has seen and done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Frames from the guest, those that were dropped included.
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
    /// Connections there are now, in any state.
    pub open_connections: usize,
    /// The most there were at once.
    pub peak_connections: usize,
    /// SYNs that were answered with a reset because a [limit](crate::Limits) was reached.
    pub refused: u64,
    /// Half-open connections that gave way to a newer one.
    pub displaced: u64,
    /// Handshakes that the guest did not complete in time.
    pub handshakes_expired: u64,
    /// Connections that the guest reset.
    pub resets: u64,
    /// Connections that nobody held any more and whose last bytes the guest never took.
    pub abandoned: u64,
}
