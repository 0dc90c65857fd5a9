//! Connections to what is allowed: the peer's life is the guest's.

use std::time::{Duration, Instant};

use metaservice_gateway::Proxy;
use metaservice_nic::Network;
use metaservice_testing::network::{Flags, Segment};
use metaservice_testing::noise;
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::world::{World, closed, echo, errors, next_error, serve};

/// A world with one name, whose port 9000 is this peer.
async fn world(peer: std::net::SocketAddr) -> World {
    let world = World::new(&["a.example"]);
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.peer("93.184.216.34:9000", peer);
    world
}

#[tokio::test]
async fn bytes_go_both_ways_and_are_counted() {
    let mut world = world(serve(echo).await).await;
    let handle = world.open("a.example", 9000).await;
    let bytes = noise(3_000_000, 5);
    let (mut rest, mut received) = (&bytes[..], Vec::new());
    world
        .until(|guest| {
            rest = &rest[guest.send(handle, rest)..];
            guest.receive(handle, &mut received);
            received.len() >= bytes.len()
        })
        .await;
    assert!(received == bytes);
    world.machine.guest.tcp(handle).close();
    assert_eq!(world.receive_all(handle).await, b"");
    assert_eq!(world.outcome().await, ("allowed".into(), "ended".into()));
    let line = &world.lines(1).await[0];
    assert_eq!(line["name"], "a.example");
    assert_eq!(line["address"], "93.184.216.34");
    assert_eq!((&line["sent"], &line["received"]), (&3_000_000.into(), &3_000_000.into()));
    assert_eq!((&line["rule"], &line["port"]), (&"a.example".into(), &9000.into()));
}

#[tokio::test]
async fn a_peer_that_speaks_first_is_heard() {
    for port in [22, 80, 443] {
        let banner = serve(async |mut stream: TcpStream| {
            stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
            let _ = stream.read_u8().await;
        });
        let banner = banner.await;
        let mut world = world(banner).await;
        world.outside.peer(&format!("93.184.216.34:{port}"), banner);
        let handle = world.open("a.example", port).await;
        assert_eq!(world.receive(handle, 14).await, b"SSH-2.0-test\r\n");
    }
}

#[tokio::test]
async fn a_half_close_goes_to_the_peer_and_its_answer_comes_back() {
    let peer = serve(async |mut stream: TcpStream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.write_all(b" was all").await.unwrap();
    });
    let mut world = world(peer.await).await;
    let handle = world.open("a.example", 9000).await;
    world.send(handle, b"this").await;
    world.machine.guest.tcp(handle).close();
    assert_eq!(world.receive_all(handle).await, b"this was all");
    assert_eq!(world.outcome().await.1, "ended");
}

#[tokio::test]
async fn a_peer_that_ends_first_can_still_read() {
    let (seen, mut reads) = mpsc::channel(1);
    let peer = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            seen.send(rest).await.unwrap();
        }
    });
    let mut world = world(peer.await).await;
    let handle = world.open("a.example", 9000).await;
    assert_eq!(world.receive_all(handle).await, b"bye");
    assert_eq!(world.machine.guest.state(handle), State::CloseWait);
    world.send(handle, b"one more").await;
    world.machine.guest.tcp(handle).close();
    let rest = world.while_running(reads.recv()).await;
    assert_eq!(rest.unwrap(), b"one more");
}

#[tokio::test]
async fn a_reset_goes_both_ways() {
    let resets = serve(async |mut stream: TcpStream| {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    let mut by_peer = world(resets.await).await;
    let handle = by_peer.open("a.example", 9000).await;
    by_peer.send(handle, b"x").await;
    by_peer.is_reset(handle).await;
    assert_eq!(by_peer.outcome().await, ("allowed".into(), "reset".into()));

    let (seen, mut errors) = mpsc::channel(1);
    let watches = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let mut rest = Vec::new();
            let error = stream.read_to_end(&mut rest).await.unwrap_err();
            seen.send(error.kind()).await.unwrap();
        }
    });
    let mut by_guest = world(watches.await).await;
    let handle = by_guest.open("a.example", 9000).await;
    by_guest.machine.guest.tcp(handle).abort();
    let error = by_guest.while_running(errors.recv()).await;
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(by_guest.outcome().await.1, "reset");
}

#[tokio::test]
async fn a_peer_that_refuses_is_refused_to_the_guest() {
    let mut world = world(closed().await).await;
    let address = world.resolve("a.example").await;
    let (_, there) = world.connect(address, 9000).await;
    assert!(!there);
    assert_eq!(world.outcome().await, ("allowed".into(), "refused".into()));
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_is_never_connected() {
    let mut world = World::limited(&["a.example", "b.example"], |limits| {
        limits.dial = Duration::from_millis(300);
    });
    world.outside.name("a.example", &["93.184.216.34", "2606:4700::1"]);
    world.outside.silent("93.184.216.34:9000");
    world.outside.silent("[2606:4700::1]:9000");
    let errors = errors(&mut world.machine.guest);
    for port in [9000, 9001] {
        let address = world.resolve("a.example").await;
        let handle = world.machine.guest.connect_to((address, port).into_socket());
        // Destination unreachable, the host (RFC 792).
        let mut error = None;
        world
            .until(|guest| {
                error = next_error(guest, errors);
                error.is_some()
            })
            .await;
        assert_eq!(error, Some((3, 1)));
        let lines = world.lines(usize::from(port == 9001) + 1).await;
        assert_eq!(lines.last().unwrap()["reason"], "unreachable");
        assert_eq!(world.machine.guest.state(handle), State::SynSent);
        world.machine.guest.tcp(handle).abort();
    }
    // A name that does not resolve.
    let address = world.resolve("b.example").await;
    world.machine.guest.connect_to((address, 9000).into_socket());
    let lines = world.lines(3).await;
    assert_eq!(lines[2]["reason"], "unresolved");
}

trait IntoSocket {
    fn into_socket(self) -> std::net::SocketAddrV4;
}

impl IntoSocket for (std::net::Ipv4Addr, u16) {
    fn into_socket(self) -> std::net::SocketAddrV4 {
        std::net::SocketAddrV4::new(self.0, self.1)
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_silent() {
    let mut world = world(serve(echo).await).await;
    world.outside.name("a.example", &["93.184.216.34", "2606:4700::1", "2606:4700::2"]);
    world.outside.silent("[2606:4700::1]:9000");
    let begun = Instant::now();
    world.open("a.example", 9000).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(world.outside.dialled(), ["[2606:4700::1]:9000", "93.184.216.34:9000"]);
}

#[tokio::test]
async fn a_guest_that_does_not_read_holds_the_peer_back() {
    let (seen, mut counts) = mpsc::channel(1);
    let peer = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let block = vec![1; 1 << 20];
            let mut count = 0;
            let wait = Duration::from_millis(500);
            while let Ok(wrote) = tokio::time::timeout(wait, stream.write(&block)).await {
                count += wrote.unwrap();
            }
            seen.send(count).await.unwrap();
        }
    });
    let mut world = world(peer.await).await;
    let handle = world.open("a.example", 9000).await;
    let count = world.while_running(counts.recv()).await.unwrap();
    // The buffers of the card, the gateway and the host's sockets.
    assert!(count < 32 << 20, "{count}");
    let received = world.receive(handle, count).await;
    assert_eq!(received.len(), count);
}

#[tokio::test]
async fn a_raw_address_is_connected_by_its_rule() {
    let mut world = World::new(&["93.184.216.0/24:9000"]);
    world.outside.peer("93.184.216.34:9000", serve(echo).await);
    let (handle, there) = world.connect([93, 184, 216, 34].into(), 9000).await;
    assert!(there);
    world.send(handle, b"echo").await;
    assert_eq!(world.receive(handle, 4).await, b"echo");
}

#[tokio::test]
async fn the_host_is_reached_by_its_name() {
    let mut world = World::new(&["host:5432"]);
    world.outside.peer("127.0.0.1:5432", serve(echo).await);
    let handle = world.open("host", 5432).await;
    world.send(handle, b"echo").await;
    assert_eq!(world.receive(handle, 4).await, b"echo");
    let address = world.resolve("host.internal").await;
    assert!(world.connect(address, 5432).await.1);
    assert!(!world.connect(address, 5433).await.1);
    assert_eq!(world.outside.resolved(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_name_is_reached_through_the_proxy_of_the_host() {
    let proxy = serve(async |mut stream: TcpStream| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let (status, rest) = match request.starts_with(b"CONNECT a.example:9000 HTTP/1.1\r\n") {
            true => ("200 OK", "from behind the proxy"),
            false => ("403 Forbidden", ""),
        };
        let answer = format!("HTTP/1.1 {status}\r\n\r\n{rest}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let proxy = proxy.await;
    let mut world = World::with(&["*.example"], |config| {
        let value = |name: &str| (name == "ALL_PROXY").then(|| "http://93.184.216.1:3128".into());
        config.proxy = Proxy::from_environment(value).unwrap();
    });
    world.outside.peer("93.184.216.1:3128", proxy);
    let handle = world.open("a.example", 9000).await;
    assert_eq!(world.receive_all(handle).await, b"from behind the proxy");
    let refused = world.resolve("b.example").await;
    assert!(!world.connect(refused, 9000).await.1);
    // The host cannot resolve these two, and need not. It refuses what it knows to be private.
    world.outside.name("a.example", &["10.0.0.1"]);
    let dialled = world.outside.dialled().len();
    let private = world.resolve("a.example").await;
    assert!(!world.connect(private, 9000).await.1);
    assert_eq!(world.outside.dialled().len(), dialled);
    assert_eq!(world.lines(2).await[1]["reason"], "not-public");
}

#[tokio::test]
async fn a_guest_that_gives_up_frees_its_place_at_once() {
    let mut world = World::limited(&["a.example"], |limits| {
        limits.dialling = 1;
        limits.dial = Duration::from_secs(3600);
    });
    world.outside.name("a.example", &["93.184.216.34"]);
    world.outside.silent("93.184.216.34:9000");
    world.outside.peer("93.184.216.34:9001", serve(echo).await);
    let address = world.resolve("a.example").await;
    let (guest, peer) = (Network::default().guest, (address, 9000).into_socket());
    let (syn, reset) = (Segment::syn(5000, 77), Segment::new(5000, 78, 0, Flags::RST));
    world.machine.guest.cable.to_service.push_back(syn.frame_between(guest, peer));
    let outside = world.outside.clone();
    world.while_running(outside.dials()).await;
    world.machine.guest.cable.to_service.push_back(reset.frame_between(guest, peer));
    assert_eq!(world.outcome().await, ("allowed".into(), "reset".into()));
    world.open("a.example", 9001).await;
}
