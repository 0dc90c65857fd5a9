//! The addresses on the cable. They are repeated here, because the harness does not use the crate
//! that it tests.

use std::net::Ipv4Addr;

/// The hardware address of the guest.
pub const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The address of the guest.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The hardware address of the service.
pub const SERVICE_HARDWARE: [u8; 6] = [0x02, 0x00, 169, 254, 169, 254];
/// The address of the service.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
