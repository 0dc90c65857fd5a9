//! The resolver and the sockets of this host, in place of those of the tests.

use std::sync::Arc;

use metaservice_gateway::SystemUplink;
use metaservice_nic::Network;
use simple_dns::{RCODE, TYPE};
use tokio::net::TcpListener;

use crate::world::{World, echo, serve};

fn world(rules: &[&str]) -> World {
    World::with(rules, |config| config.uplink = Arc::new(SystemUplink::default()))
}

#[tokio::test]
async fn a_port_of_the_host_is_reached_by_its_rule_alone() {
    let open = serve(echo).await.port();
    let other = serve(echo).await.port();
    let mut world = world(&["public", &format!("host:{open}")]);
    let handle = world.open("host", open).await;
    world.send(handle, b"to the host").await;
    assert_eq!(world.receive(handle, 11).await, b"to the host");
    let host = world.resolve("host").await;
    assert!(!world.connect(host, other).await.1);
    // Another way to the same port.
    let localhost = world.query(Network::default().router, "localhost", TYPE::A).await;
    assert_eq!(localhost.code, RCODE::Refused);
    assert_eq!(world.lines(1).await[0]["reason"], "no-rule");
}

#[tokio::test]
async fn an_address_of_the_host_is_dialled_as_its_rule_says() {
    // A listener on every interface, so that the first address that the host has outside of its
    // loopback interface would reach it.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = {
        // The address from which the host would send. No packet is sent.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        match socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) {
            Ok(std::net::SocketAddr::V4(address)) => *address.ip(),
            // A host without a network has only its loopback interface.
            _ => std::net::Ipv4Addr::LOCALHOST,
        }
    };
    let mut world = world(&["public"]);
    if own.is_loopback() {
        assert!(!world.connect([10, 0, 0, 1].into(), port).await.1);
        return;
    }
    assert!(!world.connect(own, port).await.1, "{own} is the host");
}
