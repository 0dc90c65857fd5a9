//! Each table is limited, and what is above its limit is refused at once.

use std::net::{Ipv4Addr, SocketAddrV4};

use metaservice_nic::Network;
use simple_dns::{RCODE, TYPE};
use smoltcp::socket::tcp::State;

use crate::world::{World, echo, serve, socket};

/// A world in which `a.example` and `b.example` echo at port 22, and are silent at 23.
async fn world(change: impl FnOnce(&mut metaservice_gateway::Limits)) -> World {
    let world = World::limited(&["public"], change);
    for (name, address) in [("a.example", "93.184.216.34"), ("b.example", "93.184.216.35")] {
        world.outside.name(name, &[address]);
        world.outside.peer(&format!("{address}:22"), serve(echo).await);
        world.outside.silent(&format!("{address}:23"));
    }
    world
}

/// Waits until the next attempt is refused by a limit.
async fn is_full(world: &mut World, name: &str, port: u16) {
    let address = world.resolve(name).await;
    assert!(!world.connect(address, port).await.1);
}

#[tokio::test]
async fn connections_are_limited_and_there_is_room_after_one() {
    let mut world = world(|limits| limits.connections = 2).await;
    let first = world.open("a.example", 22).await;
    world.open("b.example", 22).await;
    is_full(&mut world, "b.example", 22).await;
    assert_eq!(world.outcome().await, ("denied".into(), "limit".into()));
    world.machine.guest.tcp(first).close();
    world.receive_all(first).await;
    world.lines(2).await;
    world.open("b.example", 22).await;
}

#[tokio::test]
async fn connections_to_one_name_are_limited() {
    let mut world = world(|limits| limits.per_name = 1).await;
    world.open("a.example", 22).await;
    is_full(&mut world, "a.example", 22).await;
    world.open("b.example", 22).await;
}

#[tokio::test]
async fn connections_that_are_dialled_are_limited() {
    let mut world = world(|limits| limits.dialling = 3).await;
    let address = world.resolve("a.example").await;
    for _ in 0..3 {
        world.machine.guest.connect_to(SocketAddrV4::new(address, 23));
    }
    let outside = world.outside.clone();
    world.until(|_| outside.dialled().len() == 3).await;
    is_full(&mut world, "b.example", 22).await;
    assert_eq!(world.outside.dialled().len(), 3);
}

#[tokio::test]
async fn names_are_limited_and_one_in_use_stays() {
    let mut world = world(|limits| limits.names = 2).await;
    let used = world.resolve("a.example").await;
    let handle = world.open("a.example", 22).await;
    let mut last = world.resolve("n0.example").await;
    for number in 1..50 {
        let next = world.resolve(&format!("n{number}.example")).await;
        assert!(next != used && next != last);
        last = next;
    }
    assert_eq!(world.control.names().len(), 2);
    world.send(handle, b"still there").await;
    assert_eq!(world.receive(handle, 11).await, b"still there");
}

#[tokio::test]
async fn questions_are_limited_in_time_and_answered_with_a_failure() {
    let mut world = world(|limits| limits.queries = 10).await;
    let router = Network::default().router;
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(world.query(router, "a.example", TYPE::A).await.code);
    }
    assert_eq!(answers[..20], [RCODE::NoError; 20]);
    assert!(answers.contains(&RCODE::ServerFailure));
    assert!(world.control.totals().unrecorded > 0);
}

#[tokio::test]
async fn connections_to_the_resolver_are_limited() {
    let mut world = world(|limits| limits.resolver_connections = 2).await;
    let resolver = Ipv4Addr::new(8, 8, 8, 8);
    let (first, there) = world.connect(resolver, 53).await;
    assert!(there && world.connect(resolver, 53).await.1);
    assert!(!world.connect(resolver, 53).await.1);
    assert_eq!(world.outcome().await, ("denied".into(), "limit".into()));
    world.machine.guest.tcp(first).close();
    world.receive_all(first).await;
    assert!(world.connect(resolver, 53).await.1);
}

#[tokio::test]
async fn associations_are_limited() {
    let mut world = world(|limits| limits.associations = 1).await;
    let peer = crate::datagrams::echo().await;
    for address in ["93.184.216.34:123", "93.184.216.35:123"] {
        world.outside.peer(address, peer);
    }
    let socket = socket(&mut world.machine.guest, 6000);
    let to = |last| SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, last), 123);
    assert_eq!(world.ask(socket, to(34), b"one").await, b"one");
    let guest = &mut world.machine.guest;
    let udp = guest.sockets.get_mut::<smoltcp::socket::udp::Socket>(socket);
    udp.send_slice(b"two", to(35)).unwrap();
    assert_eq!(world.outcome().await, ("denied".into(), "limit".into()));
    assert_eq!(world.ask(socket, to(34), b"three").await, b"three");
}

#[tokio::test]
async fn a_thousand_connections_to_one_name_are_open_at_once() {
    let mut world = world(|_| {}).await;
    let address = world.resolve("a.example").await;
    let to = SocketAddrV4::new(address, 22);
    let mut handles = Vec::new();
    for port in 0..1000 {
        handles.push(world.machine.guest.connect_with(10_000 + port, to, 4096));
        // As clients do, not all SYNs are sent before the first answer.
        if port % 50 == 49 {
            let open = State::Established;
            world.until(|guest| handles.iter().all(|it| guest.state(*it) == open)).await;
        }
    }
    for handle in &handles {
        world.machine.guest.send(*handle, b"x");
    }
    let mut received = Vec::new();
    world
        .until(|guest| {
            handles.iter().for_each(|handle| guest.receive(*handle, &mut received));
            received.len() == handles.len()
        })
        .await;
}

#[tokio::test]
async fn a_thousand_clients_can_ask_at_once() {
    let mut world = world(|_| {}).await;
    let router = Network::default().router;
    for _ in 0..1000 {
        for kind in [TYPE::A, TYPE::AAAA] {
            assert_eq!(world.query(router, "a.example", kind).await.code, RCODE::NoError);
        }
    }
}

#[tokio::test]
async fn a_thousand_connections_can_be_dialled_at_once() {
    let mut world = world(|_| {}).await;
    let address = world.resolve("a.example").await;
    for number in 0..1000 {
        let to = SocketAddrV4::new(address, 23);
        world.machine.guest.connect_with(10_000 + number, to, 2048);
    }
    let outside = world.outside.clone();
    while outside.dialled().len() < 1000 {
        world.while_running(outside.dials()).await;
    }
    assert_eq!(world.control.totals().denied, 0);
}
