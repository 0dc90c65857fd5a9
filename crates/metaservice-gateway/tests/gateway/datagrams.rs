//! UDP, by rules of addresses and under `public`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use smoltcp::socket::udp;
use tokio::net::UdpSocket;

use crate::world::{World, errors, next_error, policy, socket};

const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, 34), 123);

/// Sends each datagram back.
pub(crate) async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
            socket.send_to(&buffer[..count], from).await.unwrap();
        }
    });
    address
}

async fn world(rules: &[&str]) -> (World, smoltcp::iface::SocketHandle) {
    let mut world = World::new(rules);
    world.outside.peer("93.184.216.34:123", echo().await);
    world.outside.name("time.example", &["2606:4700::1", "93.184.216.34"]);
    let socket = socket(&mut world.machine.guest, 6000);
    (world, socket)
}

fn send(world: &mut World, socket: smoltcp::iface::SocketHandle, to: SocketAddrV4) {
    let guest = &mut world.machine.guest;
    guest.sockets.get_mut::<udp::Socket>(socket).send_slice(b"x", to).unwrap();
}

#[tokio::test]
async fn datagrams_go_to_what_a_rule_allows_and_come_back() {
    for rules in [&["93.184.216.0/24:123/udp"][..], &["public"]] {
        let (mut world, socket) = world(rules).await;
        for size in [0, 1, 1000, 1472] {
            let payload = metaservice_testing::noise(size, 3);
            assert!(world.ask(socket, PEER, &payload).await == payload, "{size}");
        }
        let (lines, totals) = world.stop().await;
        assert_eq!((lines.len(), totals.allowed, totals.sent), (1, 1, 2473));
        assert_eq!(lines[0]["protocol"], "udp");
    }
}

#[tokio::test]
async fn under_open_a_name_has_udp_too() {
    let (mut world, socket) = world(&["public"]).await;
    let address = world.resolve("time.example").await;
    let to = SocketAddrV4::new(address, 123);
    assert_eq!(world.ask(socket, to, b"what time is it").await, b"what time is it");
}

#[tokio::test]
async fn other_datagrams_go_nowhere() {
    let (mut world, socket) = world(&["time.example", "93.184.216.34:124/udp", "10.0.0.0/8"]).await;
    let name = world.resolve("time.example").await;
    let others = [
        PEER,
        SocketAddrV4::new(name, 443),
        SocketAddrV4::new(name, 123),
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 123),
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 68),
    ];
    for to in others {
        send(&mut world, socket, to);
    }
    let lines = world.lines(others.len()).await;
    assert!(lines.iter().all(|line| line["verdict"] == "denied"), "{lines:?}");
    assert_eq!(world.outside.dialled(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_name_that_leads_to_the_host_has_no_udp() {
    let (mut world, socket) = world(&["public"]).await;
    world.outside.name("time.example", &["127.0.0.1", "10.0.0.1"]);
    let address = world.resolve("time.example").await;
    send(&mut world, socket, SocketAddrV4::new(address, 123));
    assert_eq!(world.outcome().await, ("denied".into(), "not-public".into()));
    assert_eq!(world.outside.dialled(), [] as [&str; 0]);
}

#[tokio::test]
async fn an_association_ends_when_it_is_idle() {
    let mut world = World::limited(&["public"], |limits| {
        limits.association_idle = Duration::from_millis(100);
    });
    world.outside.peer("93.184.216.34:123", echo().await);
    let socket = socket(&mut world.machine.guest, 6000);
    for _ in 0..2 {
        assert_eq!(world.ask(socket, PEER, b"x").await, b"x");
        let before = world.control.totals().allowed;
        world.lines(usize::try_from(before).unwrap() + 1).await;
    }
    assert_eq!(world.outside.dialled().len(), 2);
}

#[tokio::test]
async fn a_new_policy_ends_an_association() {
    let (mut world, socket) = world(&["public"]).await;
    world.ask(socket, PEER, b"x").await;
    world.control.set_policy(policy(&[]));
    assert_eq!(world.outcome().await, ("allowed".into(), "policy".into()));
    send(&mut world, socket, PEER);
    assert_eq!(world.lines(2).await[1]["reason"], "no-rule");
}

#[tokio::test]
async fn the_guest_is_told_at_once_that_a_datagram_does_not_arrive() {
    let mut world = World::new(&["93.184.216.34:123/udp"]);
    world.outside.peer("93.184.216.34:123", crate::world::closed().await);
    let handle = socket(&mut world.machine.guest, 6000);
    let errors = errors(&mut world.machine.guest);
    let denied = SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, 34), 443);
    // Administratively prohibited, and port unreachable (RFC 792, RFC 1812).
    for (to, code) in [(denied, 13), (PEER, 3)] {
        send(&mut world, handle, to);
        let mut error = None;
        world
            .until(|guest| {
                error = next_error(guest, errors);
                error.is_some()
            })
            .await;
        assert_eq!(error, Some((3, code)), "{to}");
    }
}
