//! Ports of the host that lead to the guest.

use std::net::{Ipv4Addr, SocketAddr};

use metaservice_egress::Transport;
use metaservice_gateway::{Publication, PublishError};
use metaservice_nic::Network;
use metaservice_testing::noise;
use smoltcp::socket::tcp::State;
use smoltcp::socket::udp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::world::{TIMEOUT, World, socket};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn publish(world: &World, port: u16, transport: Transport) -> SocketAddr {
    let address = world.control.publish(Publication::new(ANY, port, transport)).await.unwrap();
    assert_ne!(address.port(), 0);
    address
}

#[tokio::test]
async fn a_client_of_the_host_reaches_the_guest_under_each_policy() {
    let mut world = World::new(&[]);
    let handle = world.machine.guest.listen(80);
    let address = publish(&world, 80, Transport::Tcp).await;
    let bytes = noise(300_000, 4);
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"download\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    };
    let client = async { tokio::time::timeout(TIMEOUT, client).await };
    let (mut asked, mut rest) = (Vec::new(), &bytes[..]);
    let guest = world.machine.run_until(|guest| {
        guest.receive(handle, &mut asked);
        if asked == b"download\n" {
            rest = &rest[guest.send(handle, rest)..];
            if rest.is_empty() {
                guest.tcp(handle).close();
            }
        }
        rest.is_empty() && guest.state(handle) == State::Closed
    });
    let (received, ()) = tokio::join!(client, guest);
    assert!(received.unwrap() == bytes);
    let peer = world.machine.guest.tcp(handle).remote_endpoint();
    assert!(peer.is_none_or(|peer| peer.addr == Network::default().router.into()));
    // It is no attempt of the guest.
    assert_eq!(world.stop().await.0.len(), 0);
}

#[tokio::test]
async fn a_guest_that_does_not_listen_resets_the_client() {
    let mut world = World::new(&["public"]);
    let address = publish(&world, 81, Transport::Tcp).await;
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.read_u8().await.unwrap_err().kind()
    };
    let kind = world.while_running(client).await;
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_and_a_gateway_that_has_ended_too() {
    let world = World::new(&[]);
    let address = publish(&world, 80, Transport::Tcp).await;
    let again = Publication::new(address, 81, Transport::Tcp);
    let taken = world.control.publish(again).await;
    assert!(matches!(taken, Err(PublishError::Bind { address: at, .. }) if at == address));
    let control = world.control.clone();
    world.stop().await;
    // The port is free again.
    drop(std::net::TcpListener::bind(address).unwrap());
    assert!(matches!(control.publish(again).await, Err(PublishError::Ended)));
}

#[tokio::test]
async fn datagrams_of_clients_reach_the_guest_and_its_answers_go_back() {
    let mut world = World::new(&[]);
    let handle = socket(&mut world.machine.guest, 5000);
    let address = publish(&world, 5000, Transport::Udp).await;
    let mut clients = Vec::new();
    for number in 0..3_u8 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        client.send(&[number]).await.unwrap();
        clients.push(client);
    }
    let mut echoed = 0;
    world
        .until(|guest| {
            let socket = guest.sockets.get_mut::<udp::Socket>(handle);
            while let Ok((bytes, from)) = socket.recv() {
                let answer = [bytes[0], bytes[0]];
                assert_eq!(from.endpoint.addr, Network::default().router.into());
                socket.send_slice(&answer, from.endpoint).unwrap();
                echoed += 1;
            }
            echoed == 3
        })
        .await;
    for (number, client) in (0..3_u8).zip(&clients) {
        let mut answer = [0; 8];
        let count = world.while_running(client.recv(&mut answer)).await.unwrap();
        assert_eq!(answer[..count], [number, number]);
    }
    // Other datagrams to the card are attempts like others.
    let to = smoltcp::wire::IpEndpoint::new(Network::default().router.into(), 20_999);
    let guest = &mut world.machine.guest;
    guest.sockets.get_mut::<udp::Socket>(handle).send_slice(b"x", to).unwrap();
    assert_eq!(world.outcome().await.0, "denied");
}
