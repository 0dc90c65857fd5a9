//! Frames that a test builds byte by byte.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::addresses::{ADDRESS, HARDWARE, SERVICE_ADDRESS, SERVICE_HARDWARE};

/// Returns a frame from the guest to the service with an IPv4 packet of `protocol`.
pub fn ipv4_frame(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = SERVICE_HARDWARE.to_vec();
    frame.extend(HARDWARE);
    frame.extend([8, 0]);
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// The flags of a TCP segment (RFC 9293).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender sends no more data.
    pub const FIN: Self = Self(1);
    /// Opens a connection.
    pub const SYN: Self = Self(2);
    /// Resets a connection.
    pub const RST: Self = Self(4);
    /// The data goes to the application at once.
    pub const PSH: Self = Self(8);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(16);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP segment from the guest to port 80 of the service. The checksum is left out, as a network
/// card with checksum offload does.
///
/// ```
/// use metaservice_testing::network::Segment;
///
/// let syn = Segment::syn(9, 77).window(1000).frame();
/// let data = Segment::ack(9, 78, 1).payload(b"hello").frame();
/// # assert_ne!(syn, data);
/// ```
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// The port of the guest.
    pub port: u16,
    /// The sequence number of the first byte.
    pub sequence: u32,
    /// The next sequence number that the guest expects.
    pub acknowledged: u32,
    /// The flags.
    pub flags: Flags,
    /// The receive window of the guest, not scaled.
    pub window: u16,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// A segment with `flags`, the largest window and no data.
    pub fn new(port: u16, sequence: u32, acknowledged: u32, flags: Flags) -> Self {
        Self { port, sequence, acknowledged, flags, window: u16::MAX, payload: &[] }
    }

    /// A segment that opens a connection.
    pub fn syn(port: u16, sequence: u32) -> Self {
        Self::new(port, sequence, 0, Flags::SYN)
    }

    /// A segment that acknowledges.
    pub fn ack(port: u16, sequence: u32, acknowledged: u32) -> Self {
        Self::new(port, sequence, acknowledged, Flags::ACK)
    }

    /// Sets the receive window.
    #[must_use]
    pub fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    /// Sets the data.
    #[must_use]
    pub fn payload(self, payload: &'a [u8]) -> Self {
        Self { payload, ..self }
    }

    /// Returns the frame. A SYN has a maximum segment size of 65480 and a window scale of 7.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_between(ADDRESS, SocketAddrV4::new(SERVICE_ADDRESS, 80))
    }

    /// Returns the frame from another address of the guest, or to another peer.
    pub fn frame_between(&self, guest: Ipv4Addr, peer: SocketAddrV4) -> Vec<u8> {
        let mut tcp = self.port.to_be_bytes().to_vec();
        tcp.extend(peer.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        let syn = self.flags.contains(Flags::SYN);
        let options: &[u8] = if syn { &[2, 4, 0xff, 0xc8, 1, 3, 3, 7] } else { &[] };
        tcp.extend([u8::try_from((20 + options.len()) / 4 * 16).unwrap(), self.flags.0]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(self.payload);
        ipv4_frame(guest, *peer.ip(), 6, &tcp)
    }
}
