//! The memory of connections: it is counted, limited, given back, and used again.

use metaservice_nic::interface::ConnectionId;
use smoltcp::iface::SocketHandle;

use crate::joined::Pair;
use crate::routed::{ask, establish, pair};

/// The most that is kept of ended connections.
const KEPT: usize = 8 << 20;

/// What a thousand connections through the card may take together.
const THOUSAND: usize = 112 << 20;

fn open(pair: &mut Pair, count: u16) -> Vec<(SocketHandle, ConnectionId)> {
    (1..=count)
        .map(|port| {
            let (handle, id) = ask(pair, port);
            (handle, establish(pair, id))
        })
        .collect()
}

fn close(pair: &mut Pair, connections: Vec<(SocketHandle, ConnectionId)>) {
    for (handle, id) in connections {
        pair.interface.release(id, pair.now);
        pair.guest.tcp(handle).close();
    }
    pair.settle();
}

#[test]
fn a_thousand_connections_give_their_memory_back() {
    let mut pair = pair();
    for _ in 0..3 {
        let connections = open(&mut pair, 1000);
        let statistics = pair.interface.statistics();
        assert_eq!(statistics.open_connections, 1000);
        assert!(statistics.buffers < THOUSAND + KEPT, "{} bytes", statistics.buffers);
        close(&mut pair, connections);
        let statistics = pair.interface.statistics();
        assert_eq!(statistics.open_connections, 0);
        assert!(statistics.buffers <= KEPT, "{} bytes are left", statistics.buffers);
    }
}

#[test]
fn a_connection_in_the_buffers_of_an_ended_one_has_only_its_own_bytes() {
    let mut pair = Pair::new();
    let (first, id) = pair.open();
    let taken = pair.interface.statistics().buffers;
    // Bytes that are never read, and bytes that are never sent.
    pair.guest.send(first, &[7; 3000]);
    pair.settle();
    pair.interface.write(id, &[8; 3000]).unwrap();
    pair.guest.tcp(first).abort();
    pair.settle();
    pair.interface.release(id, pair.now);
    pair.settle();
    assert_eq!(pair.interface.statistics().buffers, taken, "the buffers are kept");
    let (second, id) = pair.open();
    assert_eq!(pair.interface.statistics().buffers, taken, "the buffers are used again");
    assert_eq!(pair.read(id), Ok(None));
    pair.guest.send(second, b"ping");
    pair.interface.write(id, b"pong").unwrap();
    pair.settle();
    assert_eq!(pair.read(id), Ok(Some(b"ping".to_vec())));
    let mut answer = Vec::new();
    pair.guest.receive(second, &mut answer);
    assert_eq!(answer, b"pong");
}

#[test]
fn a_buffer_is_filled_in_place_as_far_as_there_is_room() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    assert_eq!(pair.interface.fill(id, |_| 0), Ok(Some(0)), "the writer has nothing");
    let (mut filled, mut byte) = (0, 0);
    while let Some(count) = pair
        .interface
        .fill(id, |room| {
            let count = room.len().min(50_000);
            room[..count].fill_with(|| {
                byte = (byte + 1) % 251;
                byte
            });
            count
        })
        .unwrap()
    {
        assert!(count > 0);
        filled += count;
    }
    assert_eq!(filled, 3 << 19, "until the buffer is full");
    let mut received = Vec::new();
    while received.len() < filled {
        pair.settle();
        pair.guest.receive(handle, &mut received);
    }
    assert!(received.iter().zip((1..251).chain([0]).cycle()).all(|(is, was)| *is == was));
    pair.interface.shut_down(id);
    assert!(pair.interface.fill(id, |_| panic!("it is closed")).is_err());
}
