//! Connections of the host to ports of the guest.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use metaservice_nic::interface::{AttemptId, AttemptProgress, ConnectionId};
use metaservice_nic::{Config, ConnectError, Limits, Mtu, Network, StreamError, attach_gateway};
use metaservice_testing::network::{Flags, Guest, Machine, SERVICE_ADDRESS, Segment, ipv4_frame};
use metaservice_testing::noise;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::joined::{MINUTE, Pair};
use crate::routed::{PEER, ask, establish, network, pair, pair_with, to};

/// A connection from port 1000 of `PEER` to port 80 of the guest.
fn call(pair: &mut Pair) -> AttemptId {
    pair.interface.connect(80, to(1000), pair.now).unwrap()
}

/// A connection that the guest has accepted.
fn connect(pair: &mut Pair) -> (SocketHandle, ConnectionId) {
    let handle = pair.guest.listen(80);
    let id = call(pair);
    pair.settle();
    let AttemptProgress::Established(connection) = pair.interface.attempt_progress(id) else {
        panic!("not established")
    };
    (handle, connection)
}

#[test]
fn a_connection_to_the_guest_carries_bytes_both_ways() {
    let mut pair = pair();
    // The guest has said nothing to the gateway yet, only to the service.
    assert!(pair.serves());
    let (handle, id) = connect(&mut pair);
    assert_eq!(pair.guest.state(handle), State::Established);
    let peer = pair.guest.tcp(handle).remote_endpoint().unwrap();
    assert_eq!((peer.addr, peer.port), (PEER.into(), 1000), "what the guest sees");
    let own = SocketAddrV4::new(network().guest, 80);
    assert_eq!(pair.interface.endpoints(id), Some((own, 1000)));
    let (up, down) = (noise(3 << 20, 1), noise(3 << 20, 2));
    let (mut sent, mut written) = (0, 0);
    let (mut received, mut read) = (Vec::new(), Vec::new());
    while received.len() < down.len() || read.len() < up.len() {
        sent += pair.guest.send(handle, &up[sent..]);
        written += pair.interface.write(id, &down[written..]).unwrap().unwrap_or(0);
        pair.pass(Duration::from_millis(1));
        pair.guest.receive(handle, &mut received);
        read.extend(pair.read(id).unwrap().unwrap_or_default());
    }
    assert!(received == down && read == up);
    pair.interface.release(id, pair.now);
    pair.guest.tcp(handle).close();
    pair.settle();
    assert!(pair.interface.is_idle());
}

#[test]
fn a_port_on_which_nothing_listens_refuses() {
    let mut pair = pair();
    assert!(pair.serves());
    let id = call(&mut pair);
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Pending);
    pair.settle();
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Refused);
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Gone);
    assert!(pair.interface.is_idle());
}

/// The SYN that the card sends now.
fn syn(pair: &mut Pair) -> Vec<u8> {
    pair.interface.poll(pair.now, &mut pair.outgoing);
    let frames = pair.take_output();
    frames.into_iter().find(|frame| frame[23] == 6 && frame[47] == 2).expect("a SYN")
}

/// As `iptables -j REJECT` does, and `firewalld`.
#[test]
fn a_packet_filter_of_the_guest_refuses_too() {
    for (code, whole) in [(3, true), (13, false)] {
        let mut pair = pair();
        let id = call(&mut pair);
        let syn = syn(&mut pair);
        let quote = if whole { &syn[14..] } else { &syn[14..42] };
        let refusal = icmp_error(code, quote);
        // One about another connection changes nothing.
        let mut other = quote.to_vec();
        other[21] ^= 1;
        pair.inject(&ipv4_frame(network().guest, PEER, 1, &icmp_error(code, &other)));
        assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Pending);
        pair.inject(&ipv4_frame(network().guest, PEER, 1, &refusal));
        assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Refused);
        assert!(pair.interface.is_idle());
    }
}

fn icmp_error(code: u8, quote: &[u8]) -> Vec<u8> {
    let mut message = [&[3, code, 0, 0, 0, 0, 0, 0], quote].concat();
    let length = message.len() - message.len() % 2;
    let mut packet = smoltcp::wire::Icmpv4Packet::new_unchecked(&mut message[..length]);
    packet.fill_checksum();
    message.truncate(length);
    message
}

#[test]
fn a_guest_that_does_not_answer_has_half_a_minute() {
    let mut pair = pair();
    let id = call(&mut pair);
    syn(&mut pair);
    pair.freeze(Duration::from_secs(29));
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Pending);
    let repeated = pair.interface.statistics().frames_sent;
    assert!((4..40).contains(&repeated), "the SYN is repeated, {repeated} times");
    pair.freeze(Duration::from_secs(2));
    assert_eq!(pair.interface.attempt_progress(id), AttemptProgress::Gone);
    assert!(pair.interface.is_idle());
    assert_eq!(pair.interface.statistics().handshakes_expired, 1);
}

#[test]
fn connections_to_the_guest_are_limited() {
    let mut limits = Limits::default();
    (limits.opens, limits.routed_connections) = (2, 4);
    let mut pair = pair_with(limits);
    let connect = |pair: &mut Pair, port| pair.interface.connect(80, to(port), pair.now);
    let first = connect(&mut pair, 1).unwrap();
    connect(&mut pair, 2).unwrap();
    assert_eq!(connect(&mut pair, 3), Err(ConnectError::Limit));
    pair.interface.refuse(first, None);
    pair.interface.poll(pair.now, &mut pair.outgoing);
    pair.take_output();
    connect(&mut pair, 3).expect("the place is free again");
    // Established ones do not count as waiting, but as connections.
    let mut pair = pair_with(limits);
    for port in 1..=4 {
        pair.guest.listen(80);
        let id = connect(&mut pair, port).unwrap();
        pair.settle();
        let progress = pair.interface.attempt_progress(id);
        assert!(matches!(progress, AttemptProgress::Established(_)), "{port}");
    }
    assert_eq!(connect(&mut pair, 5), Err(ConnectError::Limit));
    assert!(pair.serves(), "the service has limits of its own");
}

#[test]
fn only_what_the_guest_can_answer_is_a_source() {
    let mut pair = pair();
    let own = network().guest;
    for source in [
        own,
        SERVICE_ADDRESS,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        [224, 0, 0, 1].into(),
        [10, 0, 2, 255].into(),
    ] {
        let result = pair.interface.connect(80, SocketAddrV4::new(source, 1), pair.now);
        assert_eq!(result, Err(ConnectError::Address), "{source}");
    }
    assert_eq!(pair.interface.connect(0, to(1), pair.now), Err(ConnectError::Address));
    call(&mut pair);
    let again = pair.interface.connect(80, to(1000), pair.now);
    assert_eq!(again, Err(ConnectError::InUse));
    pair.interface.stop_routing();
    assert_eq!(pair.interface.connect(80, to(2), pair.now), Err(ConnectError::Gone));
    let mut plain = Pair::new();
    assert_eq!(plain.interface.connect(80, to(1), plain.now), Err(ConnectError::Gone));
}

#[test]
fn the_card_chooses_a_free_port() {
    let mut pair = pair();
    let router = SocketAddrV4::new(network().router, 0);
    let mut ports: Vec<_> = (0..100)
        .map(|_| {
            pair.interface.connect(80, router, pair.now).unwrap();
            let frame = syn(&mut pair);
            assert_eq!(frame[26..30], network().router.octets());
            u16::from_be_bytes([frame[34], frame[35]])
        })
        .collect();
    assert!(ports.iter().all(|port| *port >= 49152));
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
}

#[test]
fn a_call_that_is_given_up_leaves_nothing() {
    let mut pair = pair();
    let id = call(&mut pair);
    pair.interface.refuse(id, None);
    pair.settle();
    assert!(pair.interface.is_idle());
    // The guest has accepted it already.
    let handle = pair.guest.listen(80);
    let id = call(&mut pair);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::Established);
    pair.interface.refuse(id, None);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::Closed);
    assert!(pair.interface.is_idle());
}

/// smoltcp takes the window of its own SYN for a scaled one: see `flow`.
#[test]
fn bytes_beyond_the_window_of_a_call_are_not_taken() {
    for options in [true, false] {
        let mut pair = pair();
        let id = call(&mut pair);
        let first = syn(&mut pair);
        let number = u32::from_be_bytes(first[38..42].try_into().unwrap()) + 1;
        let mut answer = Segment::new(80, 0, number, Flags::SYN | Flags::ACK)
            .frame_between(network().guest, to(1000));
        if !options {
            // Without the option for the window scale.
            answer[14 + 20 + 24..].fill(1);
        }
        pair.inject(&answer);
        let AttemptProgress::Established(id) = pair.interface.attempt_progress(id) else {
            panic!("not established")
        };
        let segment = |sequence, payload| {
            Segment::new(80, sequence, number, Flags::PSH | Flags::ACK)
                .payload(payload)
                .frame_between(network().guest, to(1000))
        };
        for offset in [65_000, 1 << 20, 4 << 20, 5 << 20, (8 << 20) - 200, 3 << 20] {
            pair.inject(&segment(1 + offset, &[7; 1000]));
        }
        pair.inject(&segment(1, b"in order"));
        assert_eq!(pair.read(id), Ok(Some(b"in order".to_vec())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_only_listens_is_reached_after_dhcp() {
    let (mut machine, socket) = Machine::new(Guest::without_address(1500));
    let (_nic, gateway, driver) = attach_gateway(socket, Config::default().mtu(Mtu::ETHERNET));
    let driver = tokio::spawn(driver.run());
    let dhcp = machine.guest.add_dhcp();
    let mut lease = None;
    machine
        .run_until(|guest| {
            lease = lease.or(guest.leased(dhcp));
            lease.is_some()
        })
        .await;
    let (address, router, resolvers) = lease.unwrap();
    let Network { guest, router: own, .. } = network();
    assert_eq!((address.address(), address.prefix_len()), (guest, 24));
    assert_eq!((router, resolvers), (Some(own), 1));
    machine.guest.set_address(address);
    machine.guest.set_router(own);
    let handle = machine.guest.listen(8080);
    let host = async {
        let mut connection = gateway.connect(8080, to(0)).await.unwrap();
        assert_eq!(connection.peer_addr(), SocketAddrV4::new(guest, 8080));
        let mut greeting = [0; 5];
        connection.read_exact(&mut greeting).await.unwrap();
        connection.write_all(&greeting).await.unwrap();
        connection.shutdown().await.unwrap();
        let refused = gateway.connect(81, to(0)).await.unwrap_err();
        assert_eq!(refused, ConnectError::Refused);
        connection
    };
    let (mut greeted, mut received) = (false, Vec::new());
    let guest = machine.run_until(|guest| {
        if !greeted && guest.tcp(handle).may_send() {
            greeted = guest.send(handle, b"hello") == 5;
        }
        guest.receive(handle, &mut received);
        guest.at_end(handle) && received == b"hello"
    });
    let (mut connection, ()) = tokio::join!(host, guest);
    machine.guest.tcp(handle).abort();
    machine.run_until(|guest| guest.tcp(handle).remote_endpoint().is_none()).await;
    let error = connection.read_u8().await.unwrap_err();
    assert_eq!(error.into_inner().unwrap().downcast_ref(), Some(&StreamError::Reset));
    // The guest answers no more, and the caller has a timeout of its own.
    let silent = tokio::time::timeout(MINUTE / 6, gateway.connect(8080, to(0))).await;
    assert!(silent.is_err());
    assert_eq!(gateway.connect(8080, to(0)).await.unwrap_err(), ConnectError::NoAnswer);
    drop(machine);
    driver.await.unwrap().unwrap();
    assert_eq!(gateway.connect(8080, to(0)).await.unwrap_err(), ConnectError::Gone);
    assert!(gateway.attempt().await.is_none());
    assert!(gateway.echo().await.is_none());
}

#[test]
fn calls_and_attempts_with_the_same_ends_are_told_apart() {
    let mut pair = pair();
    let (handle, id) = ask(&mut pair, 443);
    let from = pair.guest.tcp(handle).local_endpoint().unwrap().port;
    // The guest's attempt from this port to this peer waits, so the peer cannot call back.
    let crossed = pair.interface.connect(from, to(443), pair.now);
    assert_eq!(crossed, Err(ConnectError::InUse));
    establish(&mut pair, id);
    let crossed = pair.interface.connect(from, to(443), pair.now);
    assert_eq!(crossed, Err(ConnectError::InUse));
}
