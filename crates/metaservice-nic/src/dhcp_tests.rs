//! The server's answers: byte by byte for the format, by option for the rules.

use super::*;
use crate::address::Mtu;
use crate::network::Network;

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const ADDRESS: [u8; 4] = [169, 254, 1, 2];

/// A message of a client: type, `ciaddr`, flags, and options.
fn message(kind: u8, current: [u8; 4], broadcast: bool, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, u8::from(broadcast) << 7, 0];
    bytes.extend(current);
    bytes.extend([0; 12]);
    bytes.extend(GUEST);
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    for (number, data) in options {
        bytes.extend([*number, u8::try_from(data.len()).unwrap()]);
        bytes.extend(*data);
    }
    bytes.push(255);
    bytes
}

fn answer_of(config: &Config, bytes: &[u8]) -> Option<Reply> {
    Server::new(config).answer(&Message::parse(bytes)?)
}

fn answer(bytes: &[u8]) -> Option<Reply> {
    answer_of(&Config::default(), bytes)
}

fn find(reply: &Reply, number: u8) -> Option<Vec<u8>> {
    let mut rest = &reply.message[FIXED..];
    while let Some((option, after)) = next_option(rest) {
        if option.kind == number {
            return Some(option.data.to_vec());
        }
        rest = after;
    }
    None
}

#[test]
fn an_offer_byte_by_byte() {
    let reply = answer(&message(1, [0; 4], false, &[])).unwrap();
    let mut expected = vec![2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0];
    expected.extend(ADDRESS);
    expected.extend([0; 8]);
    expected.extend(GUEST);
    expected.resize(236, 0);
    expected.extend([0x63, 0x82, 0x53, 0x63]);
    expected.extend([53, 1, 2, 54, 4, 169, 254, 169, 254]);
    expected.extend([51, 4, 0x01, 0xe1, 0x33, 0x80, 1, 4, 255, 255, 0, 0]);
    expected.extend([26, 2, 0xff, 0xf0]);
    expected.extend([121, 9, 32, 169, 254, 169, 254, 0, 0, 0, 0, 255]);
    expected.resize(MIN_MESSAGE, 0);
    assert_eq!(reply.message, expected);
    assert_eq!((reply.destination.octets(), reply.hardware.0), (ADDRESS, GUEST));
}

#[test]
fn requests_are_acknowledged_or_refused_by_their_address() {
    let other = [169, 254, 1, 3];
    let us = SERVICE_ADDRESS.octets();
    let selecting = |address: [u8; 4]| message(3, [0; 4], true, &[(54, &us), (50, &address)]);
    let rebooting = |address: [u8; 4]| message(3, [0; 4], false, &[(50, &address)]);
    let renewing = |address: [u8; 4]| message(3, address, false, &[]);
    for (bytes, kind, destination) in [
        (selecting(ADDRESS), 5, [255; 4]),
        (selecting(other), 6, [255; 4]),
        (rebooting(ADDRESS), 5, ADDRESS),
        (rebooting([10, 0, 2, 15]), 6, [255; 4]),
        (renewing(ADDRESS), 5, ADDRESS),
        (renewing(other), 6, [255; 4]),
        (message(3, [0; 4], false, &[]), 6, [255; 4]),
    ] {
        let reply = answer(&bytes).unwrap();
        assert_eq!(find(&reply, 53), Some(vec![kind]));
        assert_eq!(reply.destination.octets(), destination);
        assert_eq!(find(&reply, 51).is_some(), kind == 5);
        assert_eq!(reply.message[16..20], if kind == 5 { ADDRESS } else { [0; 4] });
        let broadcast = reply.hardware == EthernetAddress::BROADCAST;
        assert_eq!(broadcast, destination == [255; 4]);
    }
}

#[test]
fn another_servers_client_gets_no_answer() {
    let foreign = message(3, [0; 4], false, &[(54, &[10, 0, 2, 2]), (50, &ADDRESS)]);
    assert!(answer(&foreign).is_none());
}

#[test]
fn information_comes_without_a_lease() {
    let reply = answer(&message(8, [169, 254, 7, 7], false, &[])).unwrap();
    assert_eq!(find(&reply, 53), Some(vec![5]));
    assert_eq!(find(&reply, 51), None);
    assert_eq!(reply.message[12..16], [169, 254, 7, 7]);
    assert_eq!(reply.message[16..20], [0; 4]);
    assert_eq!(reply.destination.octets(), [169, 254, 7, 7]);
}

#[test]
fn release_decline_and_the_unknown_are_ignored() {
    for kind in [4, 7, 2, 5, 6, 9, 200] {
        assert!(answer(&message(kind, ADDRESS, false, &[])).is_none(), "{kind}");
    }
}

#[test]
fn the_clients_identifier_comes_back() {
    let identifier = [255, 1, 2, 3, 4, 0, 2, 0, 0];
    let reply = answer(&message(1, [0; 4], false, &[(61, &identifier)])).unwrap();
    assert_eq!(find(&reply, 61).unwrap(), identifier);
}

#[test]
fn only_a_networked_guest_learns_of_a_way_out() {
    let plain = answer(&message(1, [0; 4], false, &[(55, &[1, 3, 6, 121])])).unwrap();
    assert_eq!((find(&plain, 3), find(&plain, 6)), (None, None));
    let config = Config::default().mtu(Mtu::ETHERNET).network(Network::default());
    let reply = answer_of(&config, &message(1, [0; 4], false, &[])).unwrap();
    assert_eq!(find(&reply, 1).unwrap(), [255, 255, 255, 0]);
    assert_eq!(find(&reply, 3).unwrap(), [10, 0, 2, 2]);
    assert_eq!(find(&reply, 6).unwrap(), [10, 0, 2, 2]);
    assert_eq!(find(&reply, 54).unwrap(), [10, 0, 2, 2]);
    let routes = find(&reply, 121).unwrap();
    assert_eq!(routes, [32, 169, 254, 169, 254, 10, 0, 2, 2, 0, 10, 0, 2, 2]);
    assert_eq!(find(&reply, 26).unwrap(), [0x05, 0xdc]);
}

#[test]
fn what_is_not_a_clients_message_is_not_read() {
    let good = message(1, [0; 4], false, &[]);
    assert!(Message::parse(&good).is_some());
    for (at, byte) in [(0, 2), (1, 6), (2, 16), (24, 10), (28, 0xff), (236, 0), (242, 0)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert!(Message::parse(&bad).is_none(), "byte {at}");
    }
    for length in 0..good.len() - 1 {
        assert!(
            Message::parse(&good[..length])
                .is_none_or(|message| length >= 243 && message.kind == DhcpMessageType::Discover)
        );
    }
}
