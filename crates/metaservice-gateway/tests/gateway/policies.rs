//! A policy that changes while the guest runs. What it forbids ends, and nothing else does.

use std::net::SocketAddrV4;

use metaservice_nic::Network;
use simple_dns::{RCODE, TYPE};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::hello::hello;
use crate::world::{World, echo, policy, serve};

/// A world in which `a.example` and `b.example` echo at some ports.
async fn world(rules: &[&str]) -> World {
    let world = World::new(rules);
    let at = serve(echo).await;
    for (name, address) in [("a.example", "93.184.216.34"), ("b.example", "93.184.216.35")] {
        world.outside.name(name, &[address]);
        for port in [22, 80, 443] {
            world.outside.peer(&format!("{address}:{port}"), at);
        }
    }
    world
}

/// Bytes go to the peer and back.
async fn echoes(world: &mut World, handle: SocketHandle, bytes: &[u8]) {
    world.send(handle, bytes).await;
    assert_eq!(world.receive(handle, bytes.len()).await, bytes);
}

#[tokio::test]
async fn a_rule_that_denies_cuts_the_address_behind_a_name() {
    let mut world = world(&["a.example", "b.example"]).await;
    let cut = world.open("a.example", 22).await;
    let kept = world.open("b.example", 22).await;
    world.control.set_policy(policy(&["a.example", "b.example", "!93.184.216.34"]));
    world.is_reset(cut).await;
    echoes(&mut world, kept, b"still here").await;
}

#[tokio::test]
async fn what_other_rules_allow_stays_open() {
    let mut world = world(&["a.example"]).await;
    let handle = world.open("a.example", 22).await;
    for rules in [&["public"][..], &["*.example:22"], &["a.example/any-sni", "!b.example"]] {
        world.control.set_policy(policy(rules));
        echoes(&mut world, handle, b"still here").await;
        assert_eq!(*world.control.policy(), policy(rules));
    }
}

#[tokio::test]
async fn the_peer_of_a_connection_that_is_cut_sees_a_reset() {
    let (seen, mut ends) = mpsc::channel(1);
    let peer = serve(move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let end = stream.read_to_end(&mut Vec::new()).await;
            seen.send(end.map_err(|error| error.kind())).await.unwrap();
        }
    });
    let mut world = world(&["a.example"]).await;
    world.outside.peer("93.184.216.34:22", peer.await);
    let handle = world.open("a.example", 22).await;
    // Its end must not look as if everything had arrived.
    world.send(handle, b"a half of it").await;
    world.control.set_policy(policy(&[]));
    let end = world.while_running(ends.recv()).await.unwrap();
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_connection_that_was_not_checked_ends_when_a_policy_demands_it() {
    for (port, bytes) in
        [(443, hello("a.example")), (80, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec())]
    {
        let mut world = world(&["public"]).await;
        let unchecked = world.open("a.example", port).await;
        echoes(&mut world, unchecked, &bytes).await;
        world.control.set_policy(policy(&["a.example"]));
        world.is_reset(unchecked).await;
        // One that was checked may be checked less.
        let checked = world.open("a.example", port).await;
        echoes(&mut world, checked, &bytes).await;
        world.control.set_policy(policy(&["public"]));
        echoes(&mut world, checked, &bytes).await;
    }
}

#[tokio::test]
async fn the_policy_at_the_end_of_the_dial_counts() {
    let mut world = world(&["a.example"]).await;
    let gate = world.outside.gated("93.184.216.34:22", serve(echo).await);
    let stands = world.resolve("a.example").await;
    let handle = world.machine.guest.connect_to(SocketAddrV4::new(stands, 22));
    let outside = world.outside.clone();
    world.until(|_| !outside.dialled().is_empty()).await;
    // The name is still allowed. The address that is being dialled is not.
    world.control.set_policy(policy(&["a.example", "!93.184.216.0/24"]));
    gate.send(()).unwrap();
    world.is_reset(handle).await;
    assert_eq!(world.outcome().await, ("denied".into(), "policy".into()));
}

#[tokio::test]
async fn a_name_that_is_allowed_later_is_resolved_then() {
    let mut world = world(&["b.example"]).await;
    let router = Network::default().router;
    let before = world.query(router, "a.example", TYPE::A).await;
    assert_eq!(before.code, RCODE::Refused);
    world.control.set_policy(policy(&["a.example", "b.example"]));
    let handle = world.open("a.example", 22).await;
    echoes(&mut world, handle, b"now").await;
}

#[tokio::test]
async fn nothing_is_open_after_a_policy_of_nothing_whatever_came_before() {
    const COUNT: usize = 40;
    let mut world = world(&["a.example", "b.example"]).await;
    let mut handles = Vec::new();
    for round in 0..COUNT {
        let name = if round % 2 == 0 { "a.example" } else { "b.example" };
        let answer = world.query(Network::default().router, name, TYPE::A).await;
        if let Some(stands) = answer.address {
            // Some are established, some are dialled, and some are new when the policy changes.
            handles.push(world.machine.guest.connect_to(SocketAddrV4::new(stands, 22)));
        }
        world.control.set_policy(match round % 3 {
            0 => policy(&["a.example", "b.example"]),
            1 => policy(&["a.example"]),
            _ => policy(&["b.example", "a.example:443"]),
        });
    }
    world.control.set_policy(policy(&[]));
    for handle in &handles {
        world.until(|guest| guest.state(*handle) == State::Closed).await;
    }
    let attempts = handles.len();
    let (lines, totals) = world.stop().await;
    let connections = lines.iter().filter(|line| line["protocol"] == "tcp").count();
    assert_eq!(connections, attempts, "each attempt has one record");
    assert_eq!(totals.allowed + totals.denied, lines.len() as u64);
}
