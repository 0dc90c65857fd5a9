//! The guest's attempts to connect through the card, from its SYN to a connection.

use std::net::SocketAddrV4;
use std::time::Duration;

use metaservice_nic::interface::AttemptProgress;
use metaservice_nic::{AttemptError, Config, Datagram, Limits, Mtu, Unreachable, attach_gateway};
use metaservice_testing::network::{Guest, Machine, Segment};
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::joined::MINUTE;
use crate::routed::{PEER, ask, establish, guest, network, pair, pair_with, to};

#[test]
fn the_guest_waits_until_its_peer_is_there() {
    let mut pair = pair();
    let (handle, id) = ask(&mut pair, 443);
    // The guest repeats its SYN. There is still one attempt, and no answer.
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.guest.state(handle), State::SynSent);
    assert_eq!(pair.interface.attempt(), None);
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Pending);
    let connection = establish(&mut pair, id);
    assert_eq!(pair.guest.state(handle), State::Established);
    pair.guest.send(handle, b"to the peer");
    pair.settle();
    assert_eq!(pair.read(connection), Ok(Some(b"to the peer".to_vec())));
    pair.interface.write(connection, b"from the peer").unwrap();
    pair.interface.shut_down(connection);
    pair.settle();
    let mut received = Vec::new();
    pair.guest.receive(handle, &mut received);
    assert_eq!(received, b"from the peer");
    // Half-close: the other direction still carries bytes.
    pair.guest.send(handle, b"more");
    pair.settle();
    assert_eq!(pair.read(connection), Ok(Some(b"more".to_vec())));
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Gone);
}

#[test]
fn the_service_is_there_beside_the_gateway() {
    let mut pair = pair();
    assert!(pair.serves());
    assert_eq!(pair.interface.attempt(), None);
    let other = pair.guest.connect_from(50_000, 81, 4096);
    pair.settle();
    assert_eq!(pair.guest.state(other), State::Closed);
}

#[test]
fn a_refused_attempt_ends_at_once() {
    let mut pair = pair();
    let (handle, id) = ask(&mut pair, 443);
    pair.interface.refuse(id, None);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::Closed);
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Gone);
    assert!(pair.interface.is_idle());
}

#[test]
fn an_unreachable_destination_is_an_icmp_error_with_the_packet() {
    let mut pair = pair();
    let (_, id) = ask(&mut pair, 443);
    pair.interface.refuse(id, Some(Unreachable::Prohibited));
    pair.interface.poll(pair.now, &mut pair.outgoing);
    let frames = pair.take_output();
    let [frame] = &frames[..] else { panic!("{frames:?}") };
    let (ip, icmp) = (&frame[14..34], &frame[34..]);
    assert_eq!((ip[9], &ip[12..16]), (1, &network().router.octets()[..]));
    assert_eq!((icmp[0], icmp[1]), (3, 13), "administratively prohibited");
    // The header of the guest's packet and its ports, by which the guest finds the socket.
    let inner = &icmp[8..];
    assert_eq!((inner[9], &inner[16..20]), (6, &PEER.octets()[..]));
    assert_eq!(inner[22..24], 443_u16.to_be_bytes());
    assert!(pair.interface.is_idle());
}

#[test]
fn an_attempt_that_the_guest_gives_up_is_gone() {
    let mut pair = pair();
    let (_, id) = ask(&mut pair, 443);
    pair.freeze(MINUTE);
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Gone);
    // A late answer changes nothing.
    pair.interface.accept_attempt(id, pair.now);
    pair.interface.refuse(id, None);
    assert!(pair.interface.is_idle());
}

/// The peer was slow. The guest has as long as usual after that.
#[test]
fn the_handshake_has_its_time_after_the_answer() {
    for (seconds, established) in [(29, true), (31, false)] {
        let mut pair = pair();
        pair.inject(&Segment::syn(9, 77).frame_between(network().guest, to(443)));
        pair.freeze(Duration::from_secs(29));
        let (id, ..) = pair.interface.attempt().unwrap();
        pair.interface.accept_attempt(id, pair.now);
        pair.interface.poll(pair.now, &mut pair.outgoing);
        let answer = pair.take_output().remove(0);
        let number = u32::from_be_bytes(answer[38..42].try_into().unwrap());
        pair.freeze(Duration::from_secs(seconds));
        let acknowledgement = Segment::ack(9, 78, number.wrapping_add(1));
        pair.inject(&acknowledgement.frame_between(network().guest, to(443)));
        let progress = pair.interface.attempt_progress(id);
        let found = matches!(progress, AttemptProgress::Established(_));
        assert_eq!(found, established, "{seconds} s: {progress:?}");
    }
}

#[test]
fn attempts_are_limited_and_the_oldest_goes() {
    let mut limits = Limits::default();
    limits.attempts = 3;
    let mut pair = pair_with(limits);
    let attempts: Vec<_> = (1..=5).map(|port| ask(&mut pair, port).1).collect();
    let progress: Vec<_> = attempts.iter().map(|id| pair.interface.attempt_progress(*id)).collect();
    assert_eq!(progress[..2], [AttemptProgress::Gone; 2]);
    assert_eq!(progress[2..], [AttemptProgress::Pending; 3]);
    assert_eq!(pair.interface.statistics().displaced, 2);
    establish(&mut pair, attempts[4]);
}

#[test]
fn an_established_attempt_without_an_owner_is_reset() {
    let mut pair = pair();
    let (handle, id) = ask(&mut pair, 443);
    pair.interface.accept_attempt(id, pair.now);
    pair.settle();
    pair.interface.refuse(id, None);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::Closed);
    assert!(pair.interface.is_idle());
}

#[test]
fn without_an_owner_each_attempt_is_refused() {
    let mut pair = pair();
    let (waits, _) = ask(&mut pair, 1);
    pair.interface.stop_routing();
    let late = pair.guest.connect_to(to(2));
    pair.settle();
    assert_eq!(pair.guest.state(late), State::Closed);
    assert_eq!(pair.guest.state(waits), State::Closed, "at once, not when it repeats its SYN");
    assert!(pair.serves(), "the service is not affected");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_becomes_a_stream() {
    let (mut machine, socket) = Machine::new(guest(1500));
    let (_nic, gateway, driver) = attach_gateway(socket, Config::default().mtu(Mtu::ETHERNET));
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect_to(to(22));
    let refused = machine.guest.connect_to(to(23));
    let owner = async {
        let first = gateway.attempt().await.unwrap();
        let second = gateway.attempt().await.unwrap();
        second.refuse();
        assert_eq!(first.destination(), to(22));
        let mut stream = first.accept().await.unwrap();
        stream.write_all(b"banner").await.unwrap();
        let mut line = [0; 4];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"line");
        let sender = gateway.sender();
        let source = SocketAddrV4::new(PEER, 53);
        let destination = SocketAddrV4::new(network().guest, 5000);
        sender.send(Datagram { source, destination, payload: b"late".to_vec() });
    };
    let mut received = Vec::new();
    let guest = machine.run_until(|guest| {
        guest.receive(handle, &mut received);
        if received == b"banner" && guest.state(handle) == State::Established {
            guest.send(handle, b"line");
            received.push(b'!');
        }
        received == b"banner!" && guest.state(refused) == State::Closed && guest.at_end(handle)
    });
    tokio::join!(owner, guest);
    drop(machine);
    driver.await.unwrap().unwrap();
    assert!(gateway.attempt().await.is_none());
    assert!(gateway.receive().await.is_none());
}

/// A guest that sends pings and datagrams, and hears what becomes of them.
fn socket(guest: &mut Guest, endpoint: icmp::Endpoint) -> SocketHandle {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 4096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(endpoint).unwrap();
    guest.sockets.add(socket)
}

fn heard(guest: &mut Guest, handle: SocketHandle) -> Option<(Vec<u8>, IpAddress)> {
    let message = guest.sockets.get_mut::<icmp::Socket<'_>>(handle).recv();
    message.ok().map(|(message, from)| (message.to_vec(), from))
}

#[tokio::test(start_paused = true)]
async fn pings_and_datagrams_are_decided_by_the_owner() {
    let (mut machine, socket_to_card) = Machine::new(guest(1500));
    let (nic, gateway, driver) =
        attach_gateway(socket_to_card, Config::default().mtu(Mtu::ETHERNET));
    let driver = tokio::spawn(driver.run());
    // The gateway alone keeps the driver.
    drop(nic);
    let ping = socket(&mut machine.guest, icmp::Endpoint::Ident(7));
    let errors = socket(&mut machine.guest, icmp::Endpoint::Udp(5000.into()));
    let own = SocketAddrV4::new(network().guest, 5000);
    let owner = async {
        let echo = gateway.echo().await.unwrap();
        let request = echo.request();
        assert_eq!((request.source, request.destination), (network().guest, PEER));
        echo.reply();
        gateway.sender().unreachable(own, to(53), Unreachable::Port);
        // One that is dropped has no answer.
        gateway.echo().await.unwrap();
    };
    let (mut sent, mut messages) = (0, Vec::new());
    let guest = machine.run_until(|guest| {
        if sent == 0 || (sent == 1 && messages.len() == 2) {
            sent += 1;
            let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"there?" };
            let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(ping);
            let buffer = socket.send(request.buffer_len(), PEER.into()).unwrap();
            request
                .emit(&mut Icmpv4Packet::new_unchecked(buffer), &ChecksumCapabilities::default());
        }
        messages.extend(heard(guest, ping));
        messages.extend(heard(guest, errors));
        sent == 2
    });
    tokio::join!(owner, guest);
    // Either can come first.
    messages.sort();
    let kinds: Vec<_> = messages.iter().map(|(bytes, from)| (bytes[0], bytes[1], *from)).collect();
    assert_eq!(kinds, [(0, 0, PEER.into()), (3, 3, network().router.into())]);
    assert_eq!(messages[0].0[8..], *b"there?");
    drop(gateway);
    assert_eq!(driver.await.unwrap().unwrap().dropped.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_owner_learns_that_the_guest_has_given_up() {
    let (mut machine, socket) = Machine::new(guest(1500));
    let (_nic, gateway, driver) = attach_gateway(socket, Config::default().mtu(Mtu::ETHERNET));
    let driver = tokio::spawn(driver.run());
    let handle = machine.guest.connect_to(to(22));
    let attempt = tokio::select! {
        attempt = gateway.attempt() => attempt,
        () = machine.run_until(|_| false) => None,
    };
    let mut attempt = attempt.unwrap();
    let waits = tokio::time::timeout(Duration::from_secs(1), attempt.abandoned()).await;
    assert!(waits.is_err(), "the guest still waits");
    machine.guest.tcp(handle).abort();
    tokio::join!(
        attempt.abandoned(),
        machine.run_until(|guest| { guest.tcp(handle).remote_endpoint().is_none() })
    );
    assert_eq!(attempt.accept().await.unwrap_err(), AttemptError);
    // One whose owner never answers ends by itself.
    machine.guest.connect_to(to(23));
    let attempt = tokio::select! {
        attempt = gateway.attempt() => attempt,
        () = machine.run_until(|_| false) => None,
    };
    let begin = tokio::time::Instant::now();
    attempt.unwrap().abandoned().await;
    assert!((29..31).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    driver.abort();
}
