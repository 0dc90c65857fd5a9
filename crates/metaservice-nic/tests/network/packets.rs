//! Packets of the guest through the card without a connection, and what never passes.

use std::net::{Ipv4Addr, SocketAddrV4};

use metaservice_nic::{
    Config, Datagram, DropReason, EchoRequest, Limits, Mtu, Protocol, SERVICE_HARDWARE_ADDRESS,
    Unreachable,
};
use metaservice_testing::network::{
    ADDRESS, Guest, HARDWARE, SERVICE_ADDRESS, Segment, ipv4_frame,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet};

use crate::joined::{Pair, echo_request};
use crate::routed::{PEER, ask, establish, guest, network, pair, pair_with, to, udp};

#[test]
fn datagrams_go_both_ways() {
    let mut pair = pair();
    let guest = network().guest;
    for to in [PEER, network().router] {
        pair.inject(&ipv4_frame(guest, to, 17, &udp(5000, 53, b"question")));
        let datagram = pair.interface.receive_datagram().unwrap();
        assert_eq!(datagram.source, SocketAddrV4::new(guest, 5000));
        assert_eq!(datagram.destination, SocketAddrV4::new(to, 53));
        assert_eq!(datagram.payload, b"question");
        let Datagram { source, destination, .. } = datagram;
        let answer = Datagram { source: destination, destination: source, payload: vec![7; 3] };
        pair.take_output();
        pair.interface.send_datagram(answer);
        pair.interface.poll(pair.now, &mut pair.outgoing);
        let frames = pair.take_output();
        let [frame] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(frame[26..30], to.octets());
        assert_eq!(frame[34..38], [0, 53, 0x13, 0x88]);
        assert_eq!(frame[42..], [7; 3]);
    }
}

#[test]
fn datagrams_that_no_owner_takes_are_dropped_and_counted() {
    let mut pair = pair();
    let frame = ipv4_frame(network().guest, PEER, 17, &udp(5000, 53, &[0; 4000]));
    for _ in 0..2000 {
        pair.inject(&frame);
    }
    let taken = std::iter::from_fn(|| pair.interface.receive_datagram()).count();
    assert_eq!(taken, (1 << 20) / 4000);
    let dropped = pair.interface.statistics().dropped.of(DropReason::NotTaken);
    assert_eq!(dropped, 2000 - u64::try_from(taken).unwrap());
    // One that does not fit into the MTU, or is not for the guest.
    for (ip, size) in [(network().guest, 65_600), (PEER, 1)] {
        let (source, destination) = (to(53), SocketAddrV4::new(ip, 1));
        pair.interface.send_datagram(Datagram { source, destination, payload: vec![0; size] });
    }
    pair.interface.poll(pair.now, &mut pair.outgoing);
    assert!(pair.take_output().is_empty());
    assert_eq!(pair.interface.statistics().dropped.of(DropReason::NoRoom), 2);
}

/// Corrects the checksum of an IPv4 header.
fn correct(frame: &mut [u8]) {
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
}

/// A packet with a loose source route (RFC 791), in a header of six words.
fn with_source_route(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = ipv4_frame(from, to, protocol, &[&[131, 4, 4, 0][..], payload].concat());
    frame[14] = 0x46;
    correct(&mut frame);
    frame
}

/// Everything that was rejected so far: the protocol, the destination, the reason.
fn rejected(pair: &mut Pair) -> Vec<(Protocol, String, DropReason)> {
    std::iter::from_fn(|| pair.interface.receive_rejected())
        .map(|it| (it.protocol, it.destination.to_string(), it.reason))
        .collect()
}

#[test]
fn what_has_options_is_refused_at_once() {
    let mut pair = pair();
    let guest = network().guest;
    let (syn, reset) = (Segment::syn(9, 77).frame_between(guest, to(443)), (6, 0x14));
    let (datagram, error) = (udp(9, 443, b"x"), (1, 3));
    let ping = echo_request();
    let packets = [
        (6, Protocol::Tcp, &syn[34..], reset, ":443"),
        (17, Protocol::Udp, &datagram, error, ":443"),
        (1, Protocol::Icmp, &ping, error, ":0"),
    ];
    for (protocol, named, payload, answer, port) in packets {
        for to in [PEER, SERVICE_ADDRESS] {
            pair.inject(&with_source_route(guest, to, protocol, payload));
            pair.interface.poll(pair.now, &mut pair.outgoing);
            let frames = pair.take_output();
            let [frame] = &frames[..] else { panic!("{protocol} {to}: {frames:?}") };
            // A reset with its flags, or an error with its type.
            let kind = if protocol == 6 { frame[47] } else { frame[34] };
            assert_eq!((frame[23], kind), answer, "{to}");
            let expected = [(named, format!("{to}{port}"), DropReason::Options)];
            assert_eq!(rejected(&mut pair), expected);
        }
    }
    assert_eq!(pair.interface.attempt(), None);
    assert_eq!(pair.interface.receive_datagram(), None);
    assert_eq!(pair.interface.receive_echo(), None);
}

#[test]
fn a_syn_without_room_or_with_data_is_refused_and_told() {
    let mut limits = Limits::default();
    limits.routed_connections = 1;
    let mut pair = pair_with(limits);
    let guest = network().guest;
    let data = Segment { payload: b"data", ..Segment::syn(9, 77) };
    pair.inject(&data.frame_between(guest, to(443)));
    let refusal = |frames: Vec<Vec<u8>>| frames.len() == 1 && frames[0][47] & 4 != 0;
    assert!(refusal(pair.take_output()));
    let expected = (Protocol::Tcp, "203.0.113.9:443".to_owned(), DropReason::MalformedTcp);
    assert_eq!(rejected(&mut pair), [expected]);
    let (_, first) = ask(&mut pair, 443);
    establish(&mut pair, first);
    pair.take_output();
    pair.inject(&Segment::syn(9, 77).frame_between(guest, to(80)));
    assert!(refusal(pair.take_output()));
    let expected = (Protocol::Tcp, "203.0.113.9:80".to_owned(), DropReason::NotTaken);
    assert_eq!(rejected(&mut pair), [expected]);
}

#[test]
fn what_is_rejected_is_told_once_and_what_is_too_much_is_counted() {
    let mut pair = pair();
    let guest = network().guest;
    let syn = Segment::syn(9, 77);
    // An answer would go to somebody else.
    pair.inject(&syn.frame_between(ADDRESS, to(443)));
    pair.inject(&syn.frame_between(guest, SocketAddrV4::new([127, 0, 0, 1].into(), 443)));
    let mut first = ipv4_frame(guest, PEER, 17, &udp(9, 443, b"x"));
    first[20] |= 0x20;
    let mut second = ipv4_frame(guest, PEER, 17, b"more");
    second[21] = 2;
    for frame in [&mut first, &mut second] {
        correct(frame);
        pair.inject(frame);
    }
    // What guests do to find their neighbours, and what belongs to a connection.
    pair.inject(&ipv4_frame(guest, [224, 0, 0, 251].into(), 17, &udp(9, 5353, b"x")));
    pair.inject(&ipv4_frame(guest, [10, 0, 2, 255].into(), 17, &udp(9, 137, b"x")));
    pair.inject(&Segment::ack(9, 78, 1).frame_between(ADDRESS, to(443)));
    assert!(pair.take_output().is_empty());
    let expected = [
        (Protocol::Tcp, "203.0.113.9:443", DropReason::InvalidSource),
        (Protocol::Tcp, "127.0.0.1:443", DropReason::ForeignDestination),
        (Protocol::Udp, "203.0.113.9:443", DropReason::Fragment),
    ];
    let expected = expected.map(|(protocol, to, reason)| (protocol, to.to_owned(), reason));
    assert_eq!(rejected(&mut pair), expected);

    let room = u64::try_from(Limits::default().rejected).unwrap();
    for _ in 0..room + 5 {
        pair.inject(&syn.frame_between(ADDRESS, to(443)));
    }
    let missed: u64 =
        std::iter::from_fn(|| pair.interface.receive_rejected()).map(|it| 1 + it.missed).sum();
    assert_eq!(missed, room + 5);
}

#[test]
fn what_never_passes() {
    let mut pair = pair();
    let guest = network().guest;
    let datagram = udp(1, 2, b"x");
    let mut fragment = ipv4_frame(guest, PEER, 17, &datagram);
    fragment[20] |= 0x20;
    let mut last_fragment = ipv4_frame(guest, PEER, 17, &datagram);
    last_fragment[21] = 2;
    for frame in [&mut fragment, &mut last_fragment] {
        correct(frame);
    }
    let foreign = |to: [u8; 4]| ipv4_frame(guest, to.into(), 17, &datagram);
    for (frame, reason) in [
        (ipv4_frame(ADDRESS, PEER, 17, &datagram), DropReason::InvalidSource),
        (ipv4_frame(PEER, PEER, 17, &datagram), DropReason::InvalidSource),
        (fragment, DropReason::Fragment),
        (last_fragment, DropReason::Fragment),
        (foreign([127, 0, 0, 1]), DropReason::ForeignDestination),
        (foreign([0, 0, 0, 0]), DropReason::ForeignDestination),
        (foreign([224, 0, 0, 251]), DropReason::ForeignDestination),
        (foreign([255, 255, 255, 255]), DropReason::ForeignDestination),
        (foreign([10, 0, 2, 255]), DropReason::ForeignDestination),
        (foreign([10, 0, 2, 15]), DropReason::ForeignDestination),
        (ipv4_frame(guest, PEER, 41, &[0; 40]), DropReason::OtherProtocol),
    ] {
        let before = pair.interface.statistics().dropped.of(reason);
        pair.inject(&frame);
        assert_eq!(pair.interface.statistics().dropped.of(reason), before + 1, "{reason:?}");
        assert_eq!(pair.interface.receive_datagram(), None);
        assert!(pair.take_output().is_empty());
    }
    // The router itself answers a ping.
    pair.inject(&ipv4_frame(guest, network().router, 1, &echo_request()));
    assert_eq!(pair.take_output().len(), 1);
    // Without a network, the card routes nothing.
    let mut plain = Pair::new();
    plain.inject(&ipv4_frame(ADDRESS, PEER, 17, &datagram));
    assert_eq!(plain.interface.statistics().dropped.of(DropReason::ForeignDestination), 1);
}

#[test]
fn arp_is_answered_for_each_address_but_the_guests_own() {
    let mut pair = pair();
    let request = |target| arp(1, HARDWARE, Ipv4Addr::UNSPECIFIED, target);
    let guest = network().guest;
    for (target, answers) in
        [(network().router, 1), (SERVICE_ADDRESS, 1), (Ipv4Addr::new(10, 0, 2, 99), 1), (guest, 0)]
    {
        pair.inject(&request(target));
        assert_eq!(pair.take_output().len(), answers, "{target}");
    }
}

/// The ICMP message of a frame from `from` to the guest, with correct checksums.
fn icmp(frame: &[u8], from: Ipv4Addr) -> Icmpv4Repr<'_> {
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!((packet.src_addr(), packet.dst_addr()), (from, network().guest));
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap()
}

/// The header that an ICMP error of the router quotes. `last` are the bytes for the MTU.
fn unreachable(frame: &[u8], code: u8, last: [u8; 2]) -> Ipv4Packet<&[u8]> {
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!((packet.src_addr(), packet.dst_addr()), (network().router, network().guest));
    assert!(Icmpv4Packet::new_checked(packet.payload()).unwrap().verify_checksum());
    assert_eq!(frame[34..36], [3, code]);
    assert_eq!(frame[38..42], [0, 0, last[0], last[1]]);
    let quote = Ipv4Packet::new_unchecked(&frame[42..62]);
    assert!(quote.verify_checksum());
    assert_eq!((quote.src_addr(), quote.dst_addr()), (network().guest, PEER));
    quote
}

/// The only frame that the card sends now.
fn only_frame(pair: &mut Pair) -> Vec<u8> {
    pair.interface.poll(pair.now, &mut pair.outgoing);
    let frames = pair.take_output();
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames.into_iter().next().unwrap()
}

fn ask_echo(pair: &mut Pair) -> EchoRequest {
    pair.inject(&ipv4_frame(network().guest, PEER, 1, &echo_request()));
    assert!(pair.take_output().is_empty(), "the owner decides");
    pair.interface.receive_echo().unwrap()
}

#[test]
fn an_echo_request_is_answered_by_its_owner() {
    let mut pair = pair();
    let request = ask_echo(&mut pair);
    assert_eq!((request.source, request.destination), (network().guest, PEER));
    assert_eq!((request.identifier, request.sequence), (1, 1));
    assert_eq!(request.payload, [0; 1000]);
    pair.interface.answer_echo(request);
    let frame = only_frame(&mut pair);
    let reply = Icmpv4Repr::EchoReply { ident: 1, seq_no: 1, data: &[0; 1000] };
    assert_eq!(icmp(&frame, PEER), reply);
    assert!(pair.interface.receive_echo().is_none());
}

#[test]
fn a_refused_echo_request_is_an_icmp_error() {
    let mut pair = pair();
    let request = ask_echo(&mut pair);
    pair.interface.refuse_echo(&request, Unreachable::Host);
    let frame = only_frame(&mut pair);
    let quote = unreachable(&frame, 1, [0, 0]);
    assert_eq!(quote.total_len(), 20 + 1008, "the header is that of the request");
    assert_eq!(quote.next_header(), IpProtocol::Icmp);
    assert_eq!(frame[62..], echo_request()[..8], "by which the guest finds who asked");
}

#[test]
fn echo_requests_that_no_owner_takes_are_dropped_and_counted() {
    let mut limits = Limits::default();
    (limits.echoes, limits.datagram_bytes) = (3, 2500);
    let mut pair = pair_with(limits);
    let small = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    for (payload, dropped) in [
        (&echo_request()[..], 0),
        (&echo_request()[..], 0),
        (&echo_request()[..], 1),
        (&small[..], 1),
        (&small[..], 2),
    ] {
        pair.inject(&ipv4_frame(network().guest, PEER, 1, payload));
        let counted = pair.interface.statistics().dropped.of(DropReason::NotTaken);
        assert_eq!(counted, dropped, "the limit of items, or of bytes");
    }
    assert_eq!(std::iter::from_fn(|| pair.interface.receive_echo()).count(), 3);
    assert!(pair.take_output().is_empty());
    // The router answers for itself.
    pair.inject(&ipv4_frame(network().guest, network().router, 1, &echo_request()));
    let frame = only_frame(&mut pair);
    assert!(matches!(icmp(&frame, network().router), Icmpv4Repr::EchoReply { .. }));
}

#[test]
fn a_datagram_that_does_not_arrive_is_an_icmp_error() {
    let mut pair = pair();
    let (own, other) = (SocketAddrV4::new(network().guest, 5000), to(53));
    for (reason, code, last) in [
        (Unreachable::Port, 3, [0, 0]),
        (Unreachable::Prohibited, 13, [0, 0]),
        (Unreachable::Network, 0, [0, 0]),
        (Unreachable::TooLarge { mtu: 1480 }, 4, 1480_u16.to_be_bytes()),
    ] {
        pair.interface.send_unreachable(own, other, reason);
        let frame = only_frame(&mut pair);
        let quote = unreachable(&frame, code, last);
        assert_eq!(quote.next_header(), IpProtocol::Udp);
        assert_eq!(frame[62..], [0x13, 0x88, 0, 53, 0, 8, 0, 0], "the ports");
    }
    pair.interface.send_unreachable(to(1), other, Unreachable::Port);
    pair.interface.poll(pair.now, &mut pair.outgoing);
    assert!(pair.take_output().is_empty(), "to another than the guest");
    assert_eq!(pair.interface.statistics().dropped.of(DropReason::NoRoom), 1);
}

#[test]
fn answers_and_datagrams_that_the_guest_does_not_take_are_dropped_and_counted() {
    let mut limits = Limits::default();
    (limits.datagrams, limits.attempts) = (10, 5);
    let mut pair = pair_with(limits);
    let (own, other) = (SocketAddrV4::new(network().guest, 5000), to(53));
    for _ in 0..20 {
        let (source, destination) = (other, own);
        pair.interface.send_datagram(Datagram { source, destination, payload: vec![1] });
        pair.interface.send_unreachable(own, other, Unreachable::Port);
    }
    pair.interface.poll(pair.now, &mut pair.outgoing);
    let frames = pair.take_output();
    let of = |protocol: u8| frames.iter().filter(|frame| frame[23] == protocol).count();
    assert_eq!((of(17), of(1)), (10, 5));
    assert_eq!(frames[0][23], 1, "answers do not wait for datagrams");
    assert_eq!(pair.interface.statistics().dropped.of(DropReason::NoRoom), 25);
}

/// A SYN to port 443 of `PEER`.
fn syn(from: Ipv4Addr) -> Vec<u8> {
    Segment::syn(9, 77).frame_between(from, to(443))
}

#[test]
fn spoofed_sources_change_nothing() {
    let mut pair = pair();
    pair.inject(&syn(network().guest));
    let (id, ..) = pair.interface.attempt().unwrap();
    for last in 16..=254 {
        let from = Ipv4Addr::new(10, 0, 2, last);
        for to in [PEER, network().router, SERVICE_ADDRESS] {
            pair.inject(&ipv4_frame(from, to, 17, &udp(1, 2, b"x")));
        }
        pair.inject(&syn(from));
        pair.inject(&arp(1, HARDWARE, from, network().router));
    }
    // The addresses of the card are of no other card.
    for from in [network().router, SERVICE_ADDRESS] {
        pair.inject(&syn(from));
        pair.inject(&arp(1, HARDWARE, from, network().router));
    }
    assert!(pair.take_output().is_empty());
    assert_eq!(pair.interface.statistics().dropped.of(DropReason::InvalidSource), 239 * 5 + 4);
    assert!(pair.interface.attempt().is_none() && pair.interface.receive_datagram().is_none());
    pair.interface.accept_attempt(id, pair.now);
    assert_eq!(only_frame(&mut pair)[..6], HARDWARE, "the guest is still known");
}

#[test]
fn frames_from_another_hardware_address_are_dropped_if_the_guests_is_known() {
    let mut network = network();
    network.hardware = Some(HARDWARE);
    let config = Config::default().network(network);
    let mut pair = Pair::of(&config, guest(Mtu::JUMBO.get()));
    let other = [0x52, 0x54, 0, 9, 9, 9];
    let mut discover = vec![0, 68, 0, 67, 0, 252, 0, 0, 1, 1, 6, 0];
    discover.resize(252, 0);
    for (mut frame, in_arp) in [
        (ipv4_frame(network.guest, PEER, 17, &udp(1, 2, b"x")), false),
        (syn(network.guest), false),
        (ipv4_frame([0; 4].into(), [255; 4].into(), 17, &discover), false),
        (arp(1, HARDWARE, network.guest, network.router), false),
        (arp(1, other, network.guest, network.router), true),
    ] {
        if !in_arp {
            frame[6..12].copy_from_slice(&other);
        }
        let before = pair.interface.statistics().dropped.of(DropReason::InvalidSource);
        pair.inject(&frame);
        let after = pair.interface.statistics().dropped.of(DropReason::InvalidSource);
        assert_eq!(after, before + 1, "{frame:?}");
    }
    assert!(pair.take_output().is_empty());
    assert!(pair.interface.attempt().is_none() && pair.interface.receive_datagram().is_none());
    assert!(pair.serves());
}

/// An ARP packet of the guest's card.
fn arp(operation: u8, hardware: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &HARDWARE, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    frame.extend(hardware);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[test]
fn arp_of_a_liar_is_harmless() {
    let mut pair = pair();
    pair.inject(&syn(network().guest));
    let (id, ..) = pair.interface.attempt().unwrap();
    let liar = [0x52, 0x54, 0, 9, 9, 9];
    let guest = network().guest;
    for frame in [
        // Claims to addresses of the card and of others, as requests and as replies.
        arp(1, liar, network().router, network().router),
        arp(2, liar, network().router, guest),
        arp(1, liar, SERVICE_ADDRESS, SERVICE_ADDRESS),
        arp(2, liar, SERVICE_ADDRESS, guest),
        arp(1, liar, PEER, network().router),
        // A claim to the guest's own address that asks no one.
        arp(1, liar, guest, guest),
        arp(2, liar, guest, network().router),
    ] {
        let before = pair.interface.statistics().dropped.total();
        pair.inject(&frame);
        assert_eq!(pair.interface.statistics().dropped.total(), before + 1, "{frame:?}");
    }
    assert!(pair.take_output().is_empty());
    pair.interface.accept_attempt(id, pair.now);
    assert_eq!(only_frame(&mut pair)[..6], HARDWARE);
}

#[test]
fn frames_for_others_are_dropped_and_counted() {
    let mut pair = pair();
    let mut other_card = syn(network().guest);
    other_card[..6].copy_from_slice(&[0x52, 0x55, 10, 0, 2, 2]);
    let mut multicast = syn(network().guest);
    multicast[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    let mut neighbour_discovery =
        [&[0x33, 0x33, 0, 0, 0, 1][..], &HARDWARE, &[0x86, 0xdd]].concat();
    neighbour_discovery.extend([0x60; 40]);
    let mut to_the_card = neighbour_discovery.clone();
    to_the_card[..6].copy_from_slice(&SERVICE_HARDWARE_ADDRESS);
    let mut tagged = [&SERVICE_HARDWARE_ADDRESS[..], &HARDWARE, &[0x81, 0, 0, 1, 8, 0]].concat();
    tagged.extend(&syn(network().guest)[14..]);
    for (frame, reason) in [
        (other_card, DropReason::ForeignDestination),
        (multicast, DropReason::ForeignDestination),
        (neighbour_discovery, DropReason::Ipv6),
        (to_the_card, DropReason::Ipv6),
        (tagged, DropReason::OtherProtocol),
    ] {
        let before = pair.interface.statistics().dropped.of(reason);
        pair.inject(&frame);
        assert_eq!(pair.interface.statistics().dropped.of(reason), before + 1, "{reason:?}");
    }
    assert!(pair.take_output().is_empty() && pair.interface.attempt().is_none());
}

/// Version 1 guests, and others that know no DHCP, have configured 169.254.1.2 by themselves.
#[test]
fn a_link_local_guest_reaches_the_service_alone() {
    let config = Config::default().network(network());
    let mut pair = Pair::of(&config, Guest::new(Mtu::JUMBO.get()));
    assert!(pair.serves());
    pair.inject(&syn(ADDRESS));
    pair.inject(&ipv4_frame(ADDRESS, network().router, 17, &udp(1, 53, b"x")));
    assert_eq!(pair.interface.statistics().dropped.of(DropReason::InvalidSource), 2);
    assert!(pair.interface.attempt().is_none() && pair.interface.receive_datagram().is_none());
    // A probe for its address (RFC 3927) finds it free, and one for the service's does not.
    for (target, answers) in [(ADDRESS, 0), (SERVICE_ADDRESS, 1)] {
        pair.inject(&arp(1, HARDWARE, Ipv4Addr::UNSPECIFIED, target));
        assert_eq!(pair.take_output().len(), answers, "{target}");
    }
}
