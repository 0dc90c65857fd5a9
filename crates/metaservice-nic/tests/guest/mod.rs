//! A guest: an independent TCP/IP stack with a card, ARP and a DHCP client of its own, at the
//! other end of the wire. Without I/O and without a clock, as the card's own core.
#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation)]

pub mod machine;

use std::{collections::VecDeque, net::Ipv4Addr, time::Duration};

use metaservice_nic::SERVICE_ADDRESS;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{dhcpv4, tcp},
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr},
};

pub const HARDWARE: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// Frames on their way, in both directions.
pub struct Cable {
    pub to_guest: VecDeque<Vec<u8>>,
    pub to_service: VecDeque<Vec<u8>>,
    pub mtu: usize,
}

pub struct Rx(Vec<u8>);
pub struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Rx(frame), Tx(&mut self.to_service)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        // As a card with a queue of its own, so that one poll does not produce everything.
        (self.to_service.len() < 512).then_some(Tx(&mut self.to_service))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

pub struct Guest {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub cable: Cable,
    next_port: u16,
}

impl Guest {
    /// A guest that has its address already.
    pub fn new(mtu: u16) -> Self {
        let mut guest = Self::without_address(mtu);
        guest.set_address(Ipv4Cidr::new(ADDRESS, 16));
        guest
    }

    pub fn without_address(mtu: u16) -> Self {
        let mut cable =
            Cable { to_guest: VecDeque::new(), to_service: VecDeque::new(), mtu: usize::from(mtu) };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(HARDWARE)));
        config.random_seed = 42;
        let interface = Interface::new(config, &mut cable, Instant::ZERO);
        Self { interface, sockets: SocketSet::new(Vec::new()), cable, next_port: 40_000 }
    }

    pub fn set_address(&mut self, address: Ipv4Cidr) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::Ipv4(address)).unwrap();
        });
    }

    pub fn add_dhcp(&mut self) -> SocketHandle {
        self.sockets.add(dhcpv4::Socket::new())
    }

    /// What DHCP came to, if it did.
    pub fn leased(&mut self, handle: SocketHandle) -> Option<(Ipv4Cidr, Option<Ipv4Addr>, usize)> {
        match self.sockets.get_mut::<dhcpv4::Socket>(handle).poll()? {
            dhcpv4::Event::Configured(config) => {
                Some((config.address, config.router, config.dns_servers.len()))
            }
            dhcpv4::Event::Deconfigured => None,
        }
    }

    pub fn connect(&mut self) -> SocketHandle {
        self.next_port += 1;
        self.connect_from(self.next_port, 80, 256 * 1024)
    }

    pub fn connect_from(&mut self, from: u16, to: u16, buffer: usize) -> SocketHandle {
        let buffers = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buffers(), buffers());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let remote = (IpAddress::Ipv4(SERVICE_ADDRESS), to);
        socket.connect(self.interface.context(), remote, from).unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn state(&self, handle: SocketHandle) -> tcp::State {
        self.sockets.get::<tcp::Socket>(handle).state()
    }

    /// Writes what of `bytes` fits, and says how much.
    pub fn send(&mut self, handle: SocketHandle, bytes: &[u8]) -> usize {
        self.tcp(handle).send_slice(bytes).unwrap_or(0)
    }

    /// Appends everything that has arrived.
    pub fn receive(&mut self, handle: SocketHandle, into: &mut Vec<u8>) {
        let socket = self.tcp(handle);
        while socket.recv_queue() > 0 {
            if socket.recv(|bytes| (bytes.len(), into.extend_from_slice(bytes))).is_err() {
                break;
            }
        }
    }

    /// Whether the service has ended its direction and everything is read.
    pub fn at_end(&self, handle: SocketHandle) -> bool {
        let socket = self.sockets.get::<tcp::Socket>(handle);
        !socket.may_recv()
            && !matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived)
    }

    pub fn poll(&mut self, now: Duration) {
        self.interface.poll(instant(now), &mut self.cable, &mut self.sockets);
    }

    pub fn delay(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }
}

pub fn instant(time: Duration) -> Instant {
    Instant::from_micros(i64::try_from(time.as_micros()).unwrap())
}

/// Bytes that differ from each other over any short distance.
pub fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A frame from the guest with an IPv4 packet of the given protocol.
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
    let mut frame = metaservice_nic::SERVICE_HARDWARE_ADDRESS.to_vec();
    frame.extend(HARDWARE);
    frame.extend([8, 0]);
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// A TCP segment to port 80, flags as in RFC 9293 (FIN 1, SYN 2, RST 4, PSH 8, ACK 16).
pub fn segment(
    port: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    window: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut tcp = port.to_be_bytes().to_vec();
    tcp.extend(80u16.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledged.to_be_bytes());
    let options: &[u8] = if flags & 2 != 0 { &[2, 4, 0xff, 0xc8, 1, 3, 3, 7] } else { &[] };
    tcp.extend([u8::try_from((20 + options.len()) / 4 * 16).unwrap(), flags]);
    tcp.extend(window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(options);
    tcp.extend(payload);
    ipv4_frame(ADDRESS, SERVICE_ADDRESS, 6, &tcp)
}
