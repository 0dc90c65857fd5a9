//! What one end of a connection through the card does, the other end sees: an end, a reset, silence
//! and slowness.

use std::time::Duration;

use metaservice_nic::interface::ConnectionId;
use metaservice_nic::{Limits, StreamError};
use metaservice_testing::noise;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use crate::joined::{MINUTE, Pair};
use crate::routed::{ask, establish, pair, pair_with, to};

/// A connection of the guest to the peer, and one of the peer to the guest.
fn both() -> [(Pair, SocketHandle, ConnectionId); 2] {
    let mut out = pair();
    let (handle, id) = ask(&mut out, 443);
    let connection = establish(&mut out, id);
    let mut back = pair();
    let listening = back.guest.listen(80);
    assert!(back.serves());
    let id = back.interface.connect(80, to(1000), back.now).unwrap();
    let called = establish(&mut back, id);
    [(out, handle, connection), (back, listening, called)]
}

#[test]
fn an_end_of_each_direction_is_carried() {
    for (mut pair, handle, id) in both() {
        pair.guest.send(handle, b"the guest's last");
        pair.guest.tcp(handle).close();
        pair.settle();
        assert_eq!(pair.read(id), Ok(Some(b"the guest's last".to_vec())));
        assert_eq!(pair.read(id), Ok(Some(Vec::new())));
        // The other direction is open, for long.
        pair.pass(10 * MINUTE);
        pair.interface.write(id, b"the peer's last").unwrap();
        pair.interface.shut_down(id);
        pair.settle();
        let mut received = Vec::new();
        pair.guest.receive(handle, &mut received);
        assert_eq!(received, b"the peer's last");
        assert!(pair.guest.at_end(handle));
        pair.interface.release(id, pair.now);
        pair.settle();
        assert!(pair.interface.is_idle());
    }
    for (mut pair, handle, id) in both() {
        pair.interface.shut_down(id);
        pair.settle();
        assert_eq!(pair.guest.state(handle), State::CloseWait);
        pair.pass(10 * MINUTE);
        pair.guest.send(handle, b"still");
        pair.settle();
        assert_eq!(pair.read(id), Ok(Some(b"still".to_vec())));
    }
}

#[test]
fn a_reset_is_carried() {
    for (mut pair, handle, id) in both() {
        pair.interface.write(id, &noise(100_000, 1)).unwrap();
        pair.interface.reset(id);
        pair.interface.release(id, pair.now);
        pair.settle();
        assert_eq!(pair.guest.state(handle), State::Closed, "and no end that looks complete");
        assert!(pair.interface.is_idle());
    }
    for (mut pair, handle, id) in both() {
        pair.guest.send(handle, b"before");
        pair.settle();
        pair.guest.tcp(handle).abort();
        pair.settle();
        assert_eq!(pair.read(id), Ok(Some(b"before".to_vec())));
        assert_eq!(pair.read(id), Err(StreamError::Reset));
        assert_eq!(pair.interface.write(id, b"x"), Err(StreamError::Reset));
    }
}

#[test]
fn slowness_is_carried() {
    for (mut pair, handle, id) in both() {
        // The peer reads nothing. The guest stops after the window and its own buffer.
        let bytes = noise(4 << 20, 3);
        let mut sent = 0;
        loop {
            let count = pair.guest.send(handle, &bytes[sent..]);
            pair.pass(Duration::from_millis(2));
            if count == 0 {
                break;
            }
            sent += count;
        }
        let most = Limits::default().receive_buffer + 256 * 1024;
        assert!(sent <= most, "{sent} bytes of at most {most}");
        let mut read = Vec::new();
        while read.len() < bytes.len() {
            read.extend(pair.read(id).unwrap().unwrap_or_default());
            sent += pair.guest.send(handle, &bytes[sent..]);
            pair.pass(Duration::from_millis(2));
        }
        assert!(read == bytes);
    }
    for (mut pair, handle, id) in both() {
        // The guest reads nothing. The card takes as much as its buffer and the guest's.
        let bytes = noise(8 << 20, 4);
        let mut written = 0;
        while let Some(count) = pair.interface.write(id, &bytes[written..]).unwrap() {
            written += count;
            pair.pass(Duration::from_millis(2));
        }
        let most = Limits::default().send_buffer + 256 * 1024;
        assert!(written <= most, "{written} bytes of at most {most}");
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            pair.guest.receive(handle, &mut received);
            written += pair.interface.write(id, &bytes[written..]).unwrap().unwrap_or(0);
            pair.pass(Duration::from_millis(2));
        }
        assert!(received == bytes);
    }
}

#[test]
fn the_guests_keep_alive_is_answered() {
    for (mut pair, handle, _) in both() {
        let socket = pair.guest.tcp(handle);
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(10)));
        socket.set_timeout(Some(smoltcp::time::Duration::from_secs(30)));
        let before = pair.interface.statistics().frames_sent;
        pair.pass(10 * MINUTE);
        assert_eq!(pair.guest.state(handle), State::Established);
        assert!(pair.interface.statistics().frames_sent - before >= 59);
    }
}

#[test]
fn a_guest_that_has_restarted_is_found() {
    for (mut pair, handle, id) in both() {
        let before = pair.interface.statistics().frames_sent;
        pair.pass(9 * MINUTE);
        assert_eq!(pair.read(id), Ok(None));
        let probes = pair.interface.statistics().frames_sent - before;
        assert!((1..=2).contains(&probes), "{probes} frames for an idle connection in 9 minutes");
        pair.guest.sockets.remove(handle);
        // The guest of this test forgets its router's hardware address within a minute of silence,
        // and then drops its answer.
        for _ in 0..8 {
            pair.pass(MINUTE * 3 / 4);
            assert!(pair.serves());
        }
        assert_eq!(pair.read(id), Err(StreamError::Reset));
    }
}

#[test]
fn a_frozen_guest_keeps_its_connections() {
    for (mut pair, handle, id) in both() {
        let before = pair.interface.statistics().frames_sent;
        pair.freeze(120 * MINUTE);
        let probes = pair.interface.statistics().frames_sent - before;
        assert!(probes < 100, "{probes} frames for a guest that does not listen");
        pair.pass(MINUTE);
        pair.guest.send(handle, b"thawed");
        pair.settle();
        assert_eq!(pair.read(id), Ok(Some(b"thawed".to_vec())));
        pair.interface.write(id, b"welcome").unwrap();
        pair.settle();
        let mut received = Vec::new();
        pair.guest.receive(handle, &mut received);
        assert_eq!(received, b"welcome");
    }
}

#[test]
fn a_thousand_connections_at_once() {
    let mut pair = pair();
    let mut open = Vec::new();
    for _ in 0..10 {
        let handles: Vec<_> = (0..100).map(|_| pair.guest.connect_to(to(443))).collect();
        pair.settle();
        for handle in handles {
            let (id, ..) = pair.interface.attempt().unwrap();
            open.push((handle, establish(&mut pair, id)));
        }
    }
    for (number, (_, id)) in open.iter().enumerate() {
        pair.interface.write(*id, &number.to_be_bytes()).unwrap();
    }
    pair.settle();
    for (number, (handle, _)) in open.iter().enumerate() {
        let mut bytes = Vec::new();
        pair.guest.receive(*handle, &mut bytes);
        assert_eq!(bytes, number.to_be_bytes());
    }
    assert!(pair.serves());
    assert_eq!(pair.interface.statistics().refused, 0);
}

#[test]
fn a_guest_that_uses_up_its_connections_still_reaches_the_service() {
    let mut limits = Limits::default();
    (limits.routed_connections, limits.attempts) = (3, 2);
    let mut pair = pair_with(limits);
    for port in 1..=3 {
        let (_, id) = ask(&mut pair, port);
        establish(&mut pair, id);
    }
    let refused = pair.guest.connect_to(to(4));
    pair.settle();
    assert_eq!(pair.guest.state(refused), State::Closed, "at once");
    assert_eq!(pair.interface.attempt(), None);
    assert_eq!(pair.interface.statistics().refused, 1);
    assert!(pair.serves());
    // Buffers are limited as well, and for each kind.
    let mut limits = Limits::default();
    limits.routed_buffers = 0;
    let mut pair = pair_with(limits);
    let (_, id) = ask(&mut pair, 1);
    pair.interface.accept_attempt(id, pair.now);
    pair.settle();
    assert!(pair.serves());
    assert_eq!(pair.interface.statistics().connections, 1, "that to the service");
}
