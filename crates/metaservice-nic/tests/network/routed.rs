//! A guest behind the card, and what tests of it need.

use std::net::{Ipv4Addr, SocketAddrV4};

use metaservice_nic::interface::{AttemptId, AttemptProgress, ConnectionId};
use metaservice_nic::{Config, Limits, Mtu, Network};
use metaservice_testing::network::Guest;
use smoltcp::iface::SocketHandle;
use smoltcp::wire::Ipv4Cidr;

use crate::joined::Pair;

pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

pub(crate) fn network() -> Network {
    Network::default()
}

pub(crate) fn guest(mtu: u16) -> Guest {
    let mut guest = Guest::without_address(mtu);
    guest.set_address(Ipv4Cidr::new(network().guest, network().prefix));
    guest.set_router(network().router);
    guest
}

pub(crate) fn pair() -> Pair {
    pair_with(Limits::default())
}

pub(crate) fn pair_with(limits: Limits) -> Pair {
    let config = Config::default().limits(limits).network(network());
    Pair::of(&config, guest(Mtu::JUMBO.get()))
}

pub(crate) fn to(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(PEER, port)
}

/// A connection that waits for its answer.
pub(crate) fn ask(pair: &mut Pair, port: u16) -> (SocketHandle, AttemptId) {
    let handle = pair.guest.connect_to(to(port));
    pair.settle();
    let (id, source, destination) = pair.interface.attempt().expect("an attempt");
    assert_eq!((*source.ip(), destination), (network().guest, to(port)));
    (handle, id)
}

pub(crate) fn establish(pair: &mut Pair, id: AttemptId) -> ConnectionId {
    pair.interface.accept_attempt(id, pair.now);
    pair.settle();
    match pair.interface.attempt_progress(id) {
        AttemptProgress::Established(connection) => connection,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    // Without a checksum, which IPv4 allows.
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}
