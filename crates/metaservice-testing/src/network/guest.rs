//! The guest: an independent TCP/IP stack, without I/O and without a clock.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{dhcpv4, tcp},
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr},
};

use super::addresses::{ADDRESS, HARDWARE, SERVICE_ADDRESS};

/// The frames that wait in each direction.
#[derive(Debug)]
pub struct Cable {
    /// Frames for the guest.
    pub to_guest: VecDeque<Vec<u8>>,
    /// Frames for the service.
    pub to_service: VecDeque<Vec<u8>>,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
}

/// A received frame.
#[derive(Debug)]
pub struct Rx(Vec<u8>);
/// The place of the next frame.
#[derive(Debug)]
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
        // A queue of limited length, as a real card has: one poll does not produce everything.
        (self.to_service.len() < 512).then_some(Tx(&mut self.to_service))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// A TCP/IP stack with one Ethernet card.
pub struct Guest {
    /// The interface.
    pub interface: Interface,
    /// The sockets.
    pub sockets: SocketSet<'static>,
    /// The cable.
    pub cable: Cable,
    next_port: u16,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("cable", &self.cable).finish_non_exhaustive()
    }
}

impl Guest {
    /// A guest that has [`ADDRESS`].
    pub fn new(mtu: u16) -> Self {
        let mut guest = Self::without_address(mtu);
        guest.set_address(Ipv4Cidr::new(ADDRESS, 16));
        guest
    }

    /// A guest without an address, for DHCP.
    pub fn without_address(mtu: u16) -> Self {
        let mut cable =
            Cable { to_guest: VecDeque::new(), to_service: VecDeque::new(), mtu: usize::from(mtu) };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(HARDWARE)));
        config.random_seed = 42;
        let interface = Interface::new(config, &mut cable, Instant::ZERO);
        Self { interface, sockets: SocketSet::new(Vec::new()), cable, next_port: 40_000 }
    }

    /// Gives the guest an address.
    pub fn set_address(&mut self, address: Ipv4Cidr) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::Ipv4(address)).unwrap();
        });
    }

    /// Starts a DHCP client.
    pub fn add_dhcp(&mut self) -> SocketHandle {
        self.sockets.add(dhcpv4::Socket::new())
    }

    /// Returns the address, router and number of resolvers that DHCP has given since the last call.
    pub fn leased(&mut self, handle: SocketHandle) -> Option<(Ipv4Cidr, Option<Ipv4Addr>, usize)> {
        match self.sockets.get_mut::<dhcpv4::Socket>(handle).poll()? {
            dhcpv4::Event::Configured(config) => {
                Some((config.address, config.router, config.dns_servers.len()))
            }
            dhcpv4::Event::Deconfigured => None,
        }
    }

    /// Connects to port 80 of the service, from a new port.
    pub fn connect(&mut self) -> SocketHandle {
        self.next_port += 1;
        self.connect_from(self.next_port, 80, 256 * 1024)
    }

    /// Connects to port `to` of the service, with buffers of `buffer` bytes.
    pub fn connect_from(&mut self, from: u16, to: u16, buffer: usize) -> SocketHandle {
        self.connect_with(from, SocketAddrV4::new(SERVICE_ADDRESS, to), buffer)
    }

    /// Connects to any address, from a new port.
    pub fn connect_to(&mut self, to: SocketAddrV4) -> SocketHandle {
        self.next_port += 1;
        self.connect_with(self.next_port, to, 256 * 1024)
    }

    /// Listens on a port, for one connection.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = new_socket(256 * 1024);
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// Sets the default route.
    pub fn set_router(&mut self, router: Ipv4Addr) {
        self.interface.routes_mut().add_default_ipv4_route(router).unwrap();
    }

    /// Connects from a port to any address, with buffers of `buffer` bytes.
    pub fn connect_with(&mut self, from: u16, to: SocketAddrV4, buffer: usize) -> SocketHandle {
        let mut socket = new_socket(buffer);
        let remote = (IpAddress::Ipv4(*to.ip()), to.port());
        socket.connect(self.interface.context(), remote, from).unwrap();
        self.sockets.add(socket)
    }

    /// The TCP socket.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// The TCP state of a socket.
    pub fn state(&self, handle: SocketHandle) -> tcp::State {
        self.sockets.get::<tcp::Socket>(handle).state()
    }

    /// Writes as much of `bytes` as fits, and returns how many bytes that is.
    pub fn send(&mut self, handle: SocketHandle, bytes: &[u8]) -> usize {
        self.tcp(handle).send_slice(bytes).unwrap_or(0)
    }

    /// Appends everything that has arrived to `into`.
    pub fn receive(&mut self, handle: SocketHandle, into: &mut Vec<u8>) {
        let socket = self.tcp(handle);
        while socket.recv_queue() > 0 {
            if socket.recv(|bytes| (bytes.len(), into.extend_from_slice(bytes))).is_err() {
                break;
            }
        }
    }

    /// Whether the service has closed its direction and everything has been read.
    pub fn at_end(&self, handle: SocketHandle) -> bool {
        let socket = self.sockets.get::<tcp::Socket>(handle);
        !socket.may_recv()
            && !matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived)
    }

    /// Lets the stack process what has arrived, and time.
    pub fn poll(&mut self, now: Duration) {
        self.interface.poll(instant(now), &mut self.cable, &mut self.sockets);
    }

    /// Returns when the stack wants to be polled again.
    pub fn delay(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(instant(now), &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }
}

fn new_socket(buffer: usize) -> tcp::Socket<'static> {
    let buffers = || tcp::SocketBuffer::new(vec![0; buffer]);
    let mut socket = tcp::Socket::new(buffers(), buffers());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// Returns the time as smoltcp has it.
pub fn instant(time: Duration) -> Instant {
    Instant::from_micros(i64::try_from(time.as_micros()).unwrap())
}
