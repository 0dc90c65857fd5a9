//! The DHCP server for one guest (RFC 2131, options of RFC 2132 and RFC 3442).
//!
//! Owns the answers and their content. It keeps no leases: there is one address and one guest, so
//! each client gets that address. A request for another address is refused. It does not relay, and
//! does not answer messages to another server.
//!
//! A guest in a network of the card gets the router both by the router option and as a classless
//! route (option 121), beside a route to the service. Clients differ: systemd-networkd and
//! NetworkManager follow RFC 3442 and ignore the router option if there is option 121. dhclient
//! sets them only by a hook, older releases of cloud-init not at all, and both set the router. The
//! route to the service is for guests with more than one card: some distributions route
//! 169.254.0.0/16 to each of them, and a default route would lose against that.

use std::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpHardware, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpFlags, DhcpMessageType, DhcpOpCode,
        DhcpOption, DhcpPacket, EthernetAddress, EthernetProtocol, IPV4_HEADER_LEN, IpProtocol,
        Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr,
    },
};

use crate::{
    address::{PREFIX_LENGTH, SERVICE_ADDRESS},
    config::Config,
    ethernet,
    frame::Outgoing,
    statistics::DropReason,
};

/// The lease time: a year in seconds. It is longer than any job, and does not have the special
/// meaning of the largest value.
const LEASE: u32 = 365 * 24 * 60 * 60;

/// The fixed part of BOOTP and the smallest options (RFC 951). Some clients reject shorter
/// messages.
const MIN_MESSAGE: usize = 300;

/// The fixed part with its magic number, before the options.
const FIXED: usize = 240;

const MAGIC: u32 = 0x6382_5363;

/// The numbers of options.
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVERS: u8 = 6;
    pub(super) const INTERFACE_MTU: u8 = 26;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const CLASSLESS_ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// The content of the server's answers.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: Ipv4Addr,
    /// The address of the server, by which clients know it.
    server: Ipv4Addr,
    prefix: u8,
    mtu: u16,
    router: Option<Ipv4Addr>,
}

/// A client's message, as far as the answer depends on it.
struct Message<'packet> {
    kind: DhcpMessageType,
    transaction: u32,
    hardware: EthernetAddress,
    /// `ciaddr`: the current address of the client.
    current: Ipv4Addr,
    wants_broadcast: bool,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<&'packet [u8]>,
}

/// An answer and its destination.
#[derive(Debug)]
struct Reply {
    server: Ipv4Addr,
    destination: Ipv4Addr,
    hardware: EthernetAddress,
    message: Vec<u8>,
}

impl Server {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            address: config.network.map_or(config.guest_address.get(), |network| network.guest),
            server: config.network.map_or(SERVICE_ADDRESS, |network| network.router),
            prefix: config.network.map_or(PREFIX_LENGTH, |network| network.prefix),
            mtu: config.mtu.get(),
            router: config.network.map(|network| network.router),
        }
    }

    /// Answers a UDP packet to the server's port. Returns whether there was an answer.
    pub(crate) fn receive(
        &self,
        header: &Ipv4Repr,
        payload: &[u8],
        checksums: &ChecksumCapabilities,
        outgoing: &mut Outgoing,
    ) -> Result<bool, DropReason> {
        let malformed = |_| DropReason::MalformedDhcp;
        let packet = UdpPacket::new_checked(payload).map_err(malformed)?;
        let (source, destination) = (header.src_addr.into(), header.dst_addr.into());
        UdpRepr::parse(&packet, &source, &destination, checksums).map_err(malformed)?;
        let message = Message::parse(packet.payload()).ok_or(DropReason::MalformedDhcp)?;
        let Some(reply) = self.answer(&message) else {
            return Ok(false);
        };
        reply.push(checksums, outgoing);
        Ok(true)
    }

    /// RFC 2131, section 4.3.
    fn answer(&self, message: &Message<'_>) -> Option<Reply> {
        tracing::debug!(kind = ?message.kind, hardware = %message.hardware, "DHCP message");
        match message.kind {
            DhcpMessageType::Discover => Some(self.lease(message, DhcpMessageType::Offer)),
            DhcpMessageType::Request => {
                // In state SELECTING the client names its server. In INIT-REBOOT, RENEWING and
                // REBINDING it asks any server whether its address is right.
                if message.server.is_some_and(|server| server != self.server) {
                    return None;
                }
                let asked = message.requested.unwrap_or(message.current);
                if asked == self.address {
                    Some(self.lease(message, DhcpMessageType::Ack))
                } else {
                    Some(self.refuse(message))
                }
            }
            DhcpMessageType::Inform => Some(self.inform(message)),
            // DECLINE and RELEASE change nothing: the address is reserved for the guest.
            _ => None,
        }
    }

    fn lease(&self, message: &Message<'_>, kind: DhcpMessageType) -> Reply {
        let mut writer = self.writer(message, kind);
        writer.packet().set_client_ip(match kind {
            DhcpMessageType::Ack => message.current,
            _ => Ipv4Addr::UNSPECIFIED,
        });
        writer.packet().set_your_ip(self.address);
        writer.option(option::LEASE_TIME, &LEASE.to_be_bytes());
        self.configure(&mut writer);
        // RFC 2131, section 4.1: the answer goes to the client's current address, or to the
        // broadcast address if the client wants that, or to the address that it is about to get.
        let destination = match (message.current, message.wants_broadcast) {
            (Ipv4Addr::UNSPECIFIED, true) => Ipv4Addr::BROADCAST,
            (Ipv4Addr::UNSPECIFIED, false) => self.address,
            (current, _) => current,
        };
        writer.finish(message, destination)
    }

    /// An answer without an address and a lease, because the client has its address from elsewhere.
    fn inform(&self, message: &Message<'_>) -> Reply {
        let mut writer = self.writer(message, DhcpMessageType::Ack);
        writer.packet().set_client_ip(message.current);
        self.configure(&mut writer);
        let destination = match message.current {
            Ipv4Addr::UNSPECIFIED => Ipv4Addr::BROADCAST,
            current => current,
        };
        writer.finish(message, destination)
    }

    fn configure(&self, writer: &mut Writer) {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        writer.option(option::SUBNET_MASK, &mask.to_be_bytes());
        writer.option(option::INTERFACE_MTU, &self.mtu.to_be_bytes());
        // RFC 3442: the router 0.0.0.0 means that the destination is on the link.
        let router = self.router.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut routes = vec![32];
        routes.extend(SERVICE_ADDRESS.octets());
        routes.extend(router.octets());
        if self.router.is_some() {
            // A client that uses option 121 ignores the router option, so the router is in both.
            routes.push(0);
            routes.extend(router.octets());
            writer.option(option::ROUTER, &router.octets());
            writer.option(option::RESOLVERS, &router.octets());
        }
        writer.option(option::CLASSLESS_ROUTES, &routes);
    }

    /// A DHCPNAK, which is always broadcast: the client must not use its address.
    fn refuse(&self, message: &Message<'_>) -> Reply {
        self.writer(message, DhcpMessageType::Nak).finish(message, Ipv4Addr::BROADCAST)
    }

    fn writer(&self, message: &Message<'_>, kind: DhcpMessageType) -> Writer {
        Writer::new(self.server, message, kind)
    }
}

impl<'packet> Message<'packet> {
    fn parse(bytes: &'packet [u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        if packet.opcode() != DhcpOpCode::Request
            || packet.hardware_type() != ArpHardware::Ethernet
            || packet.hardware_len() != 6
            || packet.magic_number() != MAGIC
            || !packet.relay_agent_ip().is_unspecified()
        {
            return None;
        }
        let hardware = packet.client_hardware_address();
        let mut message = Self {
            kind: DhcpMessageType::Unknown(0),
            transaction: packet.transaction_id(),
            hardware,
            current: packet.client_ip(),
            wants_broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
            requested: None,
            server: None,
            client: None,
        };
        let current = message.current;
        if !hardware.is_unicast() || current.is_multicast() || current.is_broadcast() {
            return None;
        }
        // `packet.options()` borrows from the packet, and the identifier must live longer.
        let mut rest = bytes.get(FIXED..)?;
        while let Some((option, after)) = next_option(rest) {
            rest = after;
            match (option.kind, option.data) {
                (option::MESSAGE_TYPE, [kind]) => message.kind = (*kind).into(),
                (option::REQUESTED_ADDRESS, data) => message.requested = address(data),
                (option::SERVER, data) => message.server = address(data),
                (option::CLIENT, data) => message.client = Some(data),
                _ => {}
            }
        }
        (message.kind != DhcpMessageType::Unknown(0)).then_some(message)
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// The first option of a list after its padding, and the rest.
fn next_option(mut bytes: &[u8]) -> Option<(DhcpOption<'_>, &[u8])> {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    match bytes {
        [] | [option::END, ..] => None,
        [kind, length, rest @ ..] => {
            let (data, rest) = rest.split_at_checked(usize::from(*length))?;
            Some((DhcpOption { kind: *kind, data }, rest))
        }
        [_] => None,
    }
}

/// An answer that is being written.
struct Writer {
    server: Ipv4Addr,
    message: Vec<u8>,
}

impl Writer {
    /// The fields and options of each answer.
    fn new(server: Ipv4Addr, message: &Message<'_>, kind: DhcpMessageType) -> Self {
        let mut writer = Self { server, message: vec![0; FIXED] };
        let mut packet = writer.packet();
        packet.set_opcode(DhcpOpCode::Reply);
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(message.transaction);
        packet.set_client_hardware_address(message.hardware);
        packet.set_magic_number(MAGIC);
        if message.wants_broadcast {
            packet.set_flags(DhcpFlags::BROADCAST);
        }
        writer.option(option::MESSAGE_TYPE, &[kind.into()]);
        writer.option(option::SERVER, &server.octets());
        // RFC 6842: the answer repeats the identifier of the client.
        if let Some(client) = message.client {
            writer.option(option::CLIENT, client);
        }
        writer
    }

    fn packet(&mut self) -> DhcpPacket<&mut [u8]> {
        DhcpPacket::new_unchecked(&mut self.message)
    }

    /// Appends an option. One that is too long is left out.
    fn option(&mut self, kind: u8, data: &[u8]) {
        if let Ok(length) = u8::try_from(data.len()) {
            self.message.extend([kind, length]);
            self.message.extend(data);
        }
    }

    fn finish(mut self, message: &Message<'_>, destination: Ipv4Addr) -> Reply {
        self.message.push(option::END);
        if self.message.len() < MIN_MESSAGE {
            self.message.resize(MIN_MESSAGE, 0);
        }
        let hardware = match destination {
            Ipv4Addr::BROADCAST => EthernetAddress::BROADCAST,
            _ => message.hardware,
        };
        Reply { server: self.server, destination, hardware, message: self.message }
    }
}

impl Reply {
    fn push(&self, checksums: &ChecksumCapabilities, outgoing: &mut Outgoing) {
        let header = Ipv4Repr {
            src_addr: self.server,
            dst_addr: self.destination,
            next_header: IpProtocol::Udp,
            payload_len: UDP_HEADER_LEN + self.message.len(),
            hop_limit: 64,
        };
        let udp = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };
        let length = IPV4_HEADER_LEN + header.payload_len;
        ethernet::push(
            outgoing,
            |_| self.hardware,
            EthernetProtocol::Ipv4,
            length,
            |packet| {
                header.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), checksums);
                udp.emit(
                    &mut UdpPacket::new_unchecked(&mut packet[IPV4_HEADER_LEN..]),
                    &header.src_addr.into(),
                    &header.dst_addr.into(),
                    self.message.len(),
                    |payload| payload.copy_from_slice(&self.message),
                    checksums,
                );
            },
        );
    }
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
