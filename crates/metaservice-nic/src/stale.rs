//! A connection that outlives its card: a guest was saved while it was open, and was restored with
//! a new card.
//!
//! Owns what is needed to reset such a connection, and the segment that does it. TCP accepts a
//! reset only at the sequence number that it expects next (RFC 9293, section 3.10.7.4), which is
//! the number that the guest has acknowledged last.

use std::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket,
        TcpRepr, TcpSeqNumber,
    },
};

use crate::{ethernet, frame::Outgoing};

/// A guest's end of a connection, from [`Observer::connections`](crate::Observer::connections).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleConnection {
    /// The hardware address of the guest's end.
    pub hardware: [u8; 6],
    /// The guest's address.
    pub peer: Ipv4Addr,
    /// The guest's port.
    pub peer_port: u16,
    /// The address at the other end: that of the service, or one behind the card.
    pub address: Ipv4Addr,
    /// The port at the other end.
    pub port: u16,
    /// The sequence number that the guest expects next.
    pub expected: u32,
}

impl StaleConnection {
    /// Resets the connection.
    pub(crate) fn reset(&self, checksums: &ChecksumCapabilities, outgoing: &mut Outgoing) {
        let segment = TcpRepr {
            src_port: self.port,
            dst_port: self.peer_port,
            control: TcpControl::Rst,
            // Sequence numbers have the same 32 bits, signed or not.
            seq_number: TcpSeqNumber(self.expected.cast_signed()),
            ack_number: None,
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let header = Ipv4Repr {
            src_addr: self.address,
            dst_addr: self.peer,
            next_header: IpProtocol::Tcp,
            payload_len: segment.buffer_len(),
            hop_limit: 64,
        };
        let destination = EthernetAddress(self.hardware);
        let length = header.buffer_len() + segment.buffer_len();
        ethernet::push(
            outgoing,
            |_| destination,
            EthernetProtocol::Ipv4,
            length,
            |bytes| {
                let mut packet = Ipv4Packet::new_unchecked(bytes);
                header.emit(&mut packet, checksums);
                let (from, to) = (self.address.into(), self.peer.into());
                let mut payload = TcpPacket::new_unchecked(packet.payload_mut());
                segment.emit(&mut payload, &from, &to, checksums);
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetFrame;

    use super::*;
    use crate::address::SERVICE_ADDRESS;

    #[test]
    fn a_reset_is_one_that_the_guest_takes() {
        let stale = StaleConnection {
            hardware: [2, 0, 0, 0, 0, 1],
            peer: [169, 254, 1, 2].into(),
            peer_port: 40_000,
            address: SERVICE_ADDRESS,
            port: 80,
            expected: u32::MAX - 1,
        };
        let mut outgoing = Outgoing::new();
        stale.reset(&ChecksumCapabilities::default(), &mut outgoing);
        assert_eq!(outgoing.frames(), 1);
        let frame = outgoing.frames_since(0).next().unwrap();
        let frame = EthernetFrame::new_checked(frame).unwrap();
        assert_eq!(frame.dst_addr().0, stale.hardware);
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.src_addr(), packet.dst_addr()), (SERVICE_ADDRESS, stale.peer));
        let segment = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(segment.verify_checksum(&SERVICE_ADDRESS.into(), &stale.peer.into()));
        assert!(segment.rst() && !segment.ack() && !segment.syn() && !segment.fin());
        assert_eq!((segment.src_port(), segment.dst_port()), (80, 40_000));
        // At any other number, the guest would ask for confirmation.
        assert_eq!(segment.seq_number().0.cast_unsigned(), stale.expected);
    }
}
