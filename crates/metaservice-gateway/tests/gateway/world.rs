//! A guest, its gateway, and a world behind it in which each public address is a socket of this
//! host.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metaservice_egress::audit::Totals;
use metaservice_egress::{DomainName, Policy};
use metaservice_gateway::{
    Config, Control, Follower, Gateway, Limits, LogFile, Uplink, UplinkFuture,
};
use metaservice_nic::{Network, Nic, attach_gateway};
use metaservice_testing::network::{Guest, Machine};
use serde_json::Value;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::socket::{raw, udp};
use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Cidr};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What is behind the host.
#[derive(Debug, Default)]
pub(crate) struct Outside(Mutex<Places>, Notify);

#[derive(Debug, Default)]
struct Places {
    names: HashMap<String, Vec<IpAddr>>,
    peers: HashMap<SocketAddr, Place>,
    own: HashSet<IpAddr>,
    answering: HashSet<IpAddr>,
    resolved: Vec<String>,
    dialled: Vec<SocketAddr>,
}

#[derive(Debug, Clone)]
enum Place {
    At(SocketAddr),
    Silent,
    /// A connection is there when the other end of this has sent something.
    Gated(SocketAddr, Arc<AsyncMutex<oneshot::Receiver<()>>>),
}

impl Outside {
    fn lock(&self) -> std::sync::MutexGuard<'_, Places> {
        self.0.lock().unwrap()
    }

    /// A name resolves to these addresses from now on.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.lock().names.insert(name.to_owned(), addresses);
    }

    /// An address leads to this socket of the host.
    pub(crate) fn peer(&self, address: &str, at: SocketAddr) {
        self.lock().peers.insert(address.parse().unwrap(), Place::At(at));
    }

    /// An address never answers.
    pub(crate) fn silent(&self, address: &str) {
        self.lock().peers.insert(address.parse().unwrap(), Place::Silent);
    }

    /// An address answers echo requests.
    pub(crate) fn answers(&self, address: &str) {
        self.lock().answering.insert(address.parse().unwrap());
    }

    /// As [`peer`](Self::peer), with connections that are there when something is sent.
    pub(crate) fn gated(&self, address: &str, at: SocketAddr) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        let place = Place::Gated(at, Arc::new(AsyncMutex::new(receiver)));
        self.lock().peers.insert(address.parse().unwrap(), place);
        sender
    }

    /// An address belongs to this host.
    pub(crate) fn own(&self, address: &str) {
        self.lock().own.insert(address.parse().unwrap());
    }

    /// The names that were resolved, in order.
    pub(crate) fn resolved(&self) -> Vec<String> {
        self.lock().resolved.clone()
    }

    /// The addresses that were dialled, in order.
    pub(crate) fn dialled(&self) -> Vec<String> {
        self.lock().dialled.iter().map(ToString::to_string).collect()
    }

    /// Waits until an address is dialled.
    pub(crate) async fn dials(&self) {
        self.1.notified().await;
    }

    fn place(&self, to: SocketAddr) -> io::Result<Place> {
        let mut places = self.lock();
        places.dialled.push(to);
        self.1.notify_one();
        places.peers.get(&to).cloned().ok_or(io::ErrorKind::HostUnreachable.into())
    }
}

impl Uplink for Outside {
    fn resolve(&self, name: &DomainName) -> UplinkFuture<'_, Vec<IpAddr>> {
        let mut places = self.lock();
        places.resolved.push(name.to_string());
        let found = places.names.get(name.as_str()).cloned();
        Box::pin(async move { found.ok_or(io::ErrorKind::NotFound.into()) })
    }

    fn connect(&self, to: SocketAddr) -> UplinkFuture<'_, TcpStream> {
        let place = self.place(to);
        Box::pin(async move {
            match place? {
                Place::At(address) => TcpStream::connect(address).await,
                Place::Gated(address, gate) => {
                    let _ = (&mut *gate.lock().await).await;
                    TcpStream::connect(address).await
                }
                Place::Silent => std::future::pending().await,
            }
        })
    }

    fn associate(&self, to: SocketAddr) -> UplinkFuture<'_, UdpSocket> {
        let place = self.place(to);
        Box::pin(async move {
            let Place::At(address) = place? else { return std::future::pending().await };
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(address).await?;
            Ok(socket)
        })
    }

    fn ping(&self, to: IpAddr, _: usize) -> UplinkFuture<'_, ()> {
        let mut places = self.lock();
        places.dialled.push(SocketAddr::new(to, 0));
        let answers = places.answering.contains(&to);
        Box::pin(async move { answers.then_some(()).ok_or(io::ErrorKind::TimedOut.into()) })
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.lock().own.contains(&address)
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) gateway: Gateway,
    pub(crate) control: Control,
    pub(crate) outside: Arc<Outside>,
    resolver: SocketHandle,
    _nic: Nic,
    _driver: JoinHandle<()>,
}

/// A policy of these rules. Those that begin with `!` deny.
pub(crate) fn policy(rules: &[&str]) -> Policy {
    let (deny, allow): (Vec<&str>, Vec<&str>) =
        rules.iter().partition(|rule| rule.starts_with('!'));
    Policy::new(
        allow.iter().map(|rule| rule.parse().unwrap()),
        deny.iter().map(|rule| rule[1..].parse().unwrap()),
    )
}

impl World {
    pub(crate) fn new(rules: &[&str]) -> Self {
        Self::with(rules, |_| {})
    }

    pub(crate) fn limited(rules: &[&str], change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(rules, |config| change(&mut config.limits))
    }

    pub(crate) fn with(rules: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let network = Network::default();
        let mut guest = Guest::without_address(1500);
        guest.set_address(Ipv4Cidr::new(network.guest, network.prefix));
        guest.set_router(network.router);
        let resolver = socket(&mut guest, 5353);
        let (machine, end) = Machine::new(guest);
        let (nic, router, driver) = attach_gateway(end, metaservice_nic::Config::default());
        let driver = tokio::spawn(async move {
            driver.run().await.unwrap();
        });
        let outside = Arc::new(Outside::default());
        let mut config = Config::default();
        config.policy = policy(rules);
        config.uplink = outside.clone();
        config.log = Some(LogFile::new(tempfile::tempfile().unwrap(), 1 << 24));
        change(&mut config);
        let gateway = Gateway::start(router, config);
        let control = gateway.control();
        Self { machine, gateway, control, outside, resolver, _nic: nic, _driver: driver }
    }

    /// Runs the guest until this is true.
    pub(crate) async fn until(&mut self, done: impl FnMut(&mut Guest) -> bool) {
        timeout(TIMEOUT, self.machine.run_until(done)).await.expect("it takes too long");
    }

    /// Runs the guest until a future completes.
    pub(crate) async fn while_running<T>(&mut self, future: impl Future<Output = T>) -> T {
        let both = async {
            tokio::select! {
                value = future => value,
                () = self.machine.run_until(|_| false) => unreachable!(),
            }
        };
        timeout(TIMEOUT, both).await.expect("it takes too long")
    }

    /// Sends a datagram, and returns the next one for the same socket.
    pub(crate) async fn ask(
        &mut self,
        socket: SocketHandle,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> Vec<u8> {
        let guest = &mut self.machine.guest;
        guest.sockets.get_mut::<udp::Socket>(socket).send_slice(payload, to).unwrap();
        let mut answer = None;
        self.until(|guest| {
            let socket = guest.sockets.get_mut::<udp::Socket>(socket);
            answer = socket.recv().ok().map(|(bytes, _)| bytes.to_vec());
            answer.is_some()
        })
        .await;
        answer.unwrap()
    }

    /// Asks the resolver at this address for a name.
    pub(crate) async fn query(&mut self, at: Ipv4Addr, name: &str, kind: TYPE) -> Answer {
        let to = SocketAddrV4::new(at, 53);
        Answer::read(&self.ask(self.resolver, to, &question(name, kind)).await)
    }

    /// The address that stands for a name.
    pub(crate) async fn resolve(&mut self, name: &str) -> Ipv4Addr {
        let answer = self.query(Network::default().router, name, TYPE::A).await;
        answer.address.unwrap_or_else(|| panic!("{name}: {answer:?}"))
    }

    /// Connects to an address, and waits until the guest has an answer. Returns whether the
    /// connection is there.
    pub(crate) async fn connect(&mut self, to: Ipv4Addr, port: u16) -> (SocketHandle, bool) {
        let handle = self.machine.guest.connect_to(SocketAddrV4::new(to, port));
        let mut state = State::SynSent;
        self.until(|guest| {
            state = guest.state(handle);
            state != State::SynSent
        })
        .await;
        (handle, state != State::Closed)
    }

    /// Connects to a name, which must succeed.
    pub(crate) async fn open(&mut self, name: &str, port: u16) -> SocketHandle {
        let address = self.resolve(name).await;
        let (handle, there) = self.connect(address, port).await;
        assert!(there, "{name} refuses the connection");
        handle
    }

    /// Sends all bytes.
    pub(crate) async fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let mut rest = bytes;
        self.until(|guest| {
            rest = &rest[guest.send(handle, rest)..];
            rest.is_empty()
        })
        .await;
    }

    /// Receives this many bytes.
    pub(crate) async fn receive(&mut self, handle: SocketHandle, count: usize) -> Vec<u8> {
        let mut received = Vec::new();
        self.until(|guest| {
            guest.receive(handle, &mut received);
            received.len() >= count
        })
        .await;
        received
    }

    /// Receives until the end.
    pub(crate) async fn receive_all(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut received = Vec::new();
        self.until(|guest| {
            guest.receive(handle, &mut received);
            guest.at_end(handle)
        })
        .await;
        received
    }

    /// Waits until a connection is reset.
    pub(crate) async fn is_reset(&mut self, handle: SocketHandle) {
        self.until(|guest| guest.state(handle) == State::Closed).await;
    }

    /// Waits for this many lines of the log, and returns them.
    pub(crate) async fn lines(&mut self, count: usize) -> Vec<Value> {
        let mut follower = self.control.log().unwrap();
        self.while_running(async { read(&mut follower, Some(count)).await }).await
    }

    /// Waits for the end of one attempt, and returns its verdict and reason.
    pub(crate) async fn outcome(&mut self) -> (String, String) {
        let lines = self.lines(1).await;
        let text = |key: &str| lines[0][key].as_str().unwrap().to_owned();
        (text("verdict"), text("reason"))
    }

    /// Ends the gateway. Returns all lines of its log, and its totals.
    pub(crate) async fn stop(self) -> (Vec<Value>, Totals) {
        let mut follower = self.control.log().unwrap();
        timeout(TIMEOUT, self.gateway.stop()).await.expect("it takes too long");
        let totals = self.control.totals();
        drop(self.control);
        (read(&mut follower, None).await, totals)
    }
}

/// Reads lines: this many, or all until the gateway has ended.
async fn read(follower: &mut Follower, count: Option<usize>) -> Vec<Value> {
    let mut lines = Vec::new();
    while count.is_none_or(|count| lines.len() < count) {
        let Some(text) = follower.next().await.unwrap() else { break };
        lines.extend(
            text.split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice::<Value>(line).unwrap()),
        );
    }
    lines
}

/// A UDP socket of the guest.
pub(crate) fn socket(guest: &mut Guest, port: u16) -> SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 1 << 16]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    guest.sockets.add(socket)
}

/// A socket of the guest that gets each ICMP message.
pub(crate) fn errors(guest: &mut Guest) -> SocketHandle {
    packets(guest, IpProtocol::Icmp)
}

/// A socket of the guest that gets each packet of a protocol, and sends whole packets.
pub(crate) fn packets(guest: &mut Guest, protocol: IpProtocol) -> SocketHandle {
    let buffer = || raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 16], vec![0; 1 << 14]);
    let version = IpVersion::Ipv4;
    guest.sockets.add(raw::Socket::new(Some(version), Some(protocol), buffer(), buffer()))
}

/// The type and the code of the next ICMP message.
pub(crate) fn next_error(guest: &mut Guest, handle: SocketHandle) -> Option<(u8, u8)> {
    let packet = guest.sockets.get_mut::<raw::Socket>(handle).recv().ok()?;
    Some((packet[20], packet[21]))
}

/// A question for a name.
pub(crate) fn question(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

/// What the resolver has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: RCODE,
    pub(crate) address: Option<Ipv4Addr>,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!(packet.id(), 77);
        let address = packet.answers.first().map(|record| match record.rdata {
            RData::A(ref a) => Ipv4Addr::from(a.address),
            ref other => panic!("{other:?}"),
        });
        Self { code: packet.rcode(), address }
    }
}

/// Serves each connection to a new port of the host.
pub(crate) async fn serve<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            tokio::spawn(handle(listener.accept().await.unwrap().0));
        }
    });
    address
}

/// Sends back what comes, until the end.
pub(crate) async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

/// A port of the host at which nothing listens.
pub(crate) async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
