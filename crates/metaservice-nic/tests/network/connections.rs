//! Connections begin and end: limits, floods of handshakes, resets.

use std::time::Duration;

use metaservice_nic::{DropReason, Limits, SERVICE_ADDRESS};
use metaservice_testing::network::{ADDRESS, Flags, Segment, ipv4_frame};
use smoltcp::socket::tcp::State;

use crate::joined::{Pair, echo_request, memory};

#[test]
fn two_hundred_connections_at_once() {
    let mut pair = Pair::new();
    assert!(pair.serves());
    let handles: Vec<_> = (0..200).map(|_| pair.guest.connect()).collect();
    pair.guest.poll(pair.now);
    assert_eq!(pair.guest.cable.to_service.len(), 200, "all SYNs come in one batch");
    pair.settle();
    let ids: Vec<_> = std::iter::from_fn(|| pair.interface.accept()).collect();
    assert_eq!(ids.len(), 200);
    for (number, id) in ids.iter().enumerate() {
        pair.interface.write(*id, &number.to_be_bytes()).unwrap();
    }
    pair.settle();
    for (number, handle) in handles.into_iter().enumerate() {
        let mut bytes = Vec::new();
        pair.guest.receive(handle, &mut bytes);
        assert_eq!(bytes, number.to_be_bytes());
    }
    let statistics = pair.interface.statistics();
    assert_eq!((statistics.connections, statistics.refused, statistics.displaced), (201, 0, 0));
}

#[test]
fn the_limit_and_one_past_it() {
    let mut limits = Limits::default();
    limits.connections = 3;
    let mut pair = Pair::with(limits);
    let opened: Vec<_> = (0..3).map(|_| pair.open()).collect();
    let refused = pair.guest.connect();
    pair.settle();
    assert_eq!(pair.guest.state(refused), State::Closed);
    assert_eq!(pair.interface.accept(), None);
    assert_eq!(pair.interface.statistics().refused, 1);
    pair.interface.release(opened[0].1, pair.now);
    pair.guest.tcp(opened[0].0).close();
    pair.settle();
    assert!(pair.serves(), "the place is free again at once");
    assert_eq!(pair.interface.statistics().peak_connections, 3);
}

#[test]
fn other_ports_are_refused_and_a_stray_reset_is_ignored() {
    let mut pair = Pair::new();
    let handle = pair.guest.connect_from(50_000, 81, 4096);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::Closed);
    pair.inject(&Segment::new(1, 5, 5, Flags::RST).window(0).frame());
    assert!(pair.take_output().is_empty(), "a reset is not answered");
    pair.inject(&Segment::ack(1, 5, 5).window(0).frame());
    assert_eq!(pair.take_output().len(), 1, "anything else is");
    assert!(pair.interface.is_idle());
}

#[test]
fn a_flood_of_syns_displaces_only_itself() {
    let mut pair = Pair::new();
    let (held, id) = pair.open();
    for port in 1..20_000 {
        pair.inject(&Segment::syn(port, 77).window(1000).frame());
        pair.take_output();
    }
    let statistics = pair.interface.statistics();
    assert_eq!(statistics.open_connections, 1 + Limits::default().half_open);
    assert_eq!(statistics.displaced, 19_999 - 1024);
    assert!(pair.serves(), "in the middle of the flood");
    pair.guest.send(held, b"still here");
    pair.settle();
    assert_eq!(pair.read(id), Ok(Some(b"still here".to_vec())));
    pair.interface.release(id, pair.now);
    pair.guest.tcp(held).close();
    pair.settle();
    pair.freeze(Duration::from_secs(31));
    assert!(pair.interface.is_idle());
    assert_eq!(pair.interface.statistics().handshakes_expired, 1023, "one gave way to the test");
}

#[test]
fn a_flood_of_syns_takes_no_buffers() {
    let mut pair = Pair::new();
    assert!(pair.serves());
    let before = memory();
    for port in 1..20_000 {
        pair.inject(&Segment::syn(port, 77).frame());
        assert_eq!(pair.take_output().len(), 1, "each is answered");
    }
    let taken = memory().saturating_sub(before);
    assert!(taken < 8 << 20, "{taken} bytes for handshakes that the guest never completes");
    assert!(pair.serves());
}

/// The service's sequence number of the first segment to a port of a guest by hand.
fn first(frames: &[Vec<u8>], port: u16) -> Option<u32> {
    let mine = |frame: &&Vec<u8>| frame[36..38] == port.to_be_bytes() && frame[47] == 0x12;
    let answer = frames.iter().find(mine)?;
    Some(u32::from_be_bytes(answer[38..42].try_into().unwrap()))
}

#[test]
fn connections_that_are_filled_stay_within_the_buffers_together() {
    let mut pair = Pair::new();
    let before = memory();
    for port in 1..3000 {
        pair.inject(&Segment::syn(port, 77).frame());
        let Some(service) = first(&pair.take_output(), port) else { continue };
        for piece in 0..20 {
            let at = 78 + piece * 60_000;
            let bytes = vec![7; 60_000];
            pair.inject(&Segment::ack(port, at, service.wrapping_add(1)).payload(&bytes).frame());
        }
        if let Some(id) = pair.interface.accept() {
            pair.interface.write(id, &vec![9; 4 << 20]).unwrap();
        }
        pair.take_output();
    }
    let taken = memory().saturating_sub(before);
    let most = Limits::default().buffers + (16 << 20);
    assert!(taken < most, "{taken} bytes where {most} are the most");
    let open = pair.interface.statistics().peak_connections;
    assert!(open > 300, "{open}");
}

#[test]
fn a_connection_that_there_is_no_memory_for_is_late_and_not_lost() {
    let mut limits = Limits::default();
    limits.buffers = 170_000;
    let mut pair = Pair::with(limits);
    let opened: Vec<_> = (0..2).map(|_| pair.open()).collect();
    let late = pair.guest.connect();
    pair.settle();
    pair.guest.send(late, b"I can wait");
    pair.settle();
    assert_eq!(pair.guest.state(late), State::Established, "it was answered");
    assert_eq!(pair.interface.accept(), None);
    assert!(pair.interface.statistics().refused > 0);
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.interface.accept(), None);
    let (handle, id) = opened[0];
    pair.interface.release(id, pair.now);
    pair.guest.tcp(handle).close();
    pair.pass(Duration::from_secs(10));
    let id = pair.interface.accept().expect("a connection in the end");
    assert_eq!(pair.read(id), Ok(Some(b"I can wait".to_vec())));
    pair.interface.write(id, b"thanks").unwrap();
    pair.settle();
    let mut answer = Vec::new();
    pair.guest.receive(late, &mut answer);
    assert_eq!(answer, b"thanks");
}

/// A guest requests its next action on one connection until the job ends.
#[test]
fn a_connection_of_many_small_requests_takes_no_more_and_no_more() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    let ask = |pair: &mut Pair, count| {
        for _ in 0..count {
            pair.guest.send(handle, &[b'?'; 350]);
            pair.settle();
            assert_eq!(pair.read(id).unwrap().unwrap().len(), 350);
            pair.interface.write(id, &[b'!'; 300]).unwrap();
            pair.settle();
            let mut answer = Vec::new();
            pair.guest.receive(handle, &mut answer);
            assert_eq!(answer.len(), 300);
        }
    };
    // The guest's own buffers are filled once.
    ask(&mut pair, 1000);
    let before = memory();
    ask(&mut pair, 20_000);
    let taken = memory().saturating_sub(before);
    assert!(taken < 2 << 20, "{taken} bytes");
}

#[test]
fn a_handshake_has_half_a_minute() {
    for (seconds, established) in [(29, true), (31, false)] {
        let mut pair = Pair::new();
        pair.inject(&Segment::syn(9, 77).frame());
        let service = first(&pair.take_output(), 9).unwrap();
        // The same SYN gets the same answer.
        pair.inject(&Segment::syn(9, 77).frame());
        assert_eq!(first(&pair.take_output(), 9), Some(service));
        // A segment that does not complete the handshake leaves it as it is.
        for (sequence, acknowledged) in [(78, service), (79, service.wrapping_add(1))] {
            pair.inject(&Segment::ack(9, sequence, acknowledged).frame());
            assert_eq!(pair.interface.accept(), None);
        }
        pair.freeze(Duration::from_secs(seconds));
        pair.guest.cable.to_guest.clear();
        pair.inject(&Segment::ack(9, 78, service.wrapping_add(1)).frame());
        assert_eq!(pair.interface.accept().is_some(), established, "{seconds} s");
    }
}

#[test]
fn echo_is_answered_and_other_services_are_unreachable() {
    let mut pair = Pair::new();
    pair.inject(&ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &echo_request()));
    let reply = pair.take_output().remove(0);
    assert_eq!((reply.len(), reply[34]), (14 + 20 + 1008, 0));
    let dns = [0x30, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    pair.inject(&ipv4_frame(ADDRESS, SERVICE_ADDRESS, 17, &dns));
    let reply = pair.take_output().remove(0);
    assert_eq!(reply[34..36], [3, 3], "port unreachable");
    pair.inject(&ipv4_frame(ADDRESS, [169, 254, 9, 9].into(), 1, &echo_request()));
    let mut broken = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &echo_request());
    broken[24] ^= 1;
    pair.inject(&broken);
    let mut fragment = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &echo_request());
    fragment[20] = 0x20;
    pair.inject(&fragment);
    pair.inject(&ipv4_frame([255; 4].into(), SERVICE_ADDRESS, 1, &echo_request()));
    assert!(pair.take_output().is_empty());
    let dropped = pair.interface.statistics().dropped;
    for reason in [
        DropReason::ForeignDestination,
        DropReason::MalformedIpv4,
        DropReason::Fragment,
        DropReason::InvalidSource,
    ] {
        assert_eq!(dropped.of(reason), 1, "{reason:?}");
    }
}

#[test]
fn the_same_ports_can_be_used_again_at_once() {
    let mut pair = Pair::new();
    for round in 0..50 {
        let handle = pair.guest.connect_from(50_000, 80, 4096);
        pair.settle();
        let id = pair.interface.accept().expect("a connection");
        // The service closes first, so it is the side with TIME-WAIT.
        pair.interface.release(id, pair.now);
        pair.settle();
        pair.guest.tcp(handle).close();
        pair.settle();
        assert_eq!(pair.guest.state(handle), State::Closed, "round {round}");
        assert!(pair.interface.is_idle(), "round {round}");
        pair.guest.sockets.remove(handle);
    }
}

#[test]
fn a_repeated_syn_is_the_same_and_another_begins_anew() {
    let mut pair = Pair::new();
    let syn = |sequence| Segment::syn(9, sequence).window(1000).frame();
    pair.inject(&syn(1));
    let first = pair.take_output().remove(0);
    pair.inject(&syn(1));
    let again = pair.take_output().remove(0);
    assert_eq!((&first[38..46], first.len()), (&again[38..46], again.len()), "the same answer");
    pair.inject(&syn(500));
    let second = pair.take_output().remove(0);
    let number =
        |frame: &[u8], at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    assert_eq!((number(&first, 42), number(&second, 42)), (2, 501));
    pair.inject(&Segment::ack(9, 501, number(&second, 38) + 1).window(1000).frame());
    assert!(pair.interface.accept().is_some());
    assert_eq!(pair.interface.statistics().open_connections, 1);
}

#[test]
fn after_the_end_of_listening_connections_are_reset() {
    let mut pair = Pair::new();
    let (held, id) = pair.open();
    let waiting = pair.guest.connect();
    pair.settle();
    let half = Segment::syn(9, 1).window(1000).frame();
    pair.inject(&half);
    let answer = pair.take_output().remove(0);
    pair.interface.stop_listening();
    pair.settle();
    assert_eq!(pair.guest.state(waiting), State::Closed);
    let service = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
    pair.inject(&Segment::ack(9, 2, service).window(1000).frame());
    pair.take_output();
    let late = pair.guest.connect();
    pair.settle();
    assert_eq!(pair.guest.state(late), State::Closed);
    pair.guest.send(held, b"on");
    pair.settle();
    assert_eq!(pair.read(id), Ok(Some(b"on".to_vec())));
    pair.interface.release(id, pair.now);
    pair.guest.tcp(held).close();
    pair.settle();
    assert!(pair.interface.is_idle());
    assert_eq!(pair.interface.deadline(), None);
}
