//! The data of a connection: windows, acknowledgements, slow readers.

use std::time::Duration;

use metaservice_nic::{DropReason, Mtu, SERVICE_ADDRESS, StreamError};
use metaservice_testing::network::{ADDRESS, Flags, Guest, Segment, ipv4_frame};
use metaservice_testing::noise;
use smoltcp::socket::tcp::State;

use crate::joined::{MINUTE, Pair, echo_request};

#[test]
fn connections_outlive_silence_and_a_frozen_guest() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    pair.pass(600 * MINUTE);
    assert_eq!(pair.guest.state(handle), State::Established);
    let sent = pair.interface.statistics().frames_sent;
    let bytes = noise(100_000, 1);
    assert_eq!(pair.interface.write(id, &bytes), Ok(Some(bytes.len())));
    pair.freeze(120 * MINUTE);
    let repeated = pair.interface.statistics().frames_sent - sent;
    assert!(repeated < 1000, "{repeated} frames for a guest that does not listen");
    pair.pass(2 * MINUTE);
    let mut received = Vec::new();
    pair.guest.receive(handle, &mut received);
    assert_eq!(received, bytes);
    pair.guest.send(handle, b"thawed");
    pair.settle();
    assert_eq!(pair.read(id), Ok(Some(b"thawed".to_vec())));
}

#[test]
fn what_was_written_is_delivered_after_the_release() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    pair.guest.send(handle, b"never read");
    let bytes = noise(1_500_000, 2);
    pair.settle();
    assert_eq!(pair.interface.write(id, &bytes), Ok(Some(bytes.len())));
    pair.interface.release(id, pair.now);
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        pair.settle();
        pair.guest.receive(handle, &mut received);
    }
    assert!(received == bytes);
    pair.settle();
    assert!(pair.guest.at_end(handle));
    // The guest continues to send, and never closes. The card accepts that for a while.
    pair.guest.send(handle, b"more");
    pair.pass(Duration::from_secs(29));
    assert_eq!(pair.guest.state(handle), State::CloseWait);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.guest.state(handle), State::Closed);
    assert!(pair.interface.is_idle());
}

#[test]
fn an_unread_upload_does_not_block_the_answer() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    let (upload, answer) = (vec![1; 8 << 20], noise(1_000_000, 6));
    pair.interface.write(id, &answer).unwrap();
    pair.interface.release(id, pair.now);
    // The guest reads nothing until it has sent everything.
    let mut sent = 0;
    while sent < upload.len() {
        let count = pair.guest.send(handle, &upload[sent..]);
        assert!(count > 0, "stuck after {sent} bytes");
        sent += count;
        pair.settle();
    }
    let mut received = Vec::new();
    while received.len() < answer.len() {
        pair.guest.receive(handle, &mut received);
        pair.settle();
    }
    assert!(received == answer);
}

#[test]
fn a_guest_that_takes_nothing_keeps_nothing_for_ever() {
    let mut pair = Pair::new();
    let (_, id) = pair.open();
    let bytes = noise(1_000_000, 3);
    pair.interface.write(id, &bytes).unwrap();
    pair.interface.release(id, pair.now);
    pair.pass(14 * MINUTE);
    assert!(!pair.interface.is_idle());
    pair.pass(2 * MINUTE);
    assert!(pair.interface.is_idle());
    assert_eq!(pair.interface.statistics().abandoned, 1);
}

#[test]
fn a_slow_reader_does_not_hold_up_others() {
    let mut pair = Pair::new();
    let (slow, slow_id) = pair.open();
    let bytes = noise(10 << 20, 4);
    let mut sent = 0;
    loop {
        let count = pair.guest.send(slow, &bytes[sent..]);
        sent += count;
        // The guest's buffer is no larger than the data that may wait for an acknowledgement.
        pair.pass(Duration::from_millis(2));
        if count == 0 {
            break;
        }
    }
    let held = sent - 256 * 1024;
    assert!(held <= 1 << 20, "{held} bytes are held for a reader that does not read");
    assert!(held > 3 << 18);
    assert!(pair.serves());
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        received.extend(pair.read(slow_id).unwrap().unwrap_or_default());
        sent += pair.guest.send(slow, &bytes[sent..]);
        pair.pass(Duration::from_millis(2));
    }
    assert!(received == bytes);
}

#[test]
fn an_acknowledgement_waits_for_others_or_for_the_answer() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    let sent = |pair: &Pair| pair.interface.statistics().frames_sent;
    let full = usize::from(Mtu::JUMBO.get()) - 40;
    let before = sent(&pair);
    pair.guest.send(handle, &noise(full, 1));
    pair.settle();
    assert_eq!(sent(&pair), before, "one segment can wait");
    pair.pass(Duration::from_millis(2));
    assert_eq!(sent(&pair), before + 1, "but not for long");
    pair.guest.send(handle, &noise(100, 1));
    pair.settle();
    assert_eq!(sent(&pair), before + 1);
    pair.read(id).unwrap();
    pair.interface.write(id, b"answer").unwrap();
    pair.settle();
    assert_eq!(sent(&pair), before + 2, "the answer says it too");
    pair.pass(Duration::from_millis(50));
    assert_eq!(sent(&pair), before + 2);
    for piece in 0..8 {
        pair.guest.send(handle, &noise(full, piece));
        pair.settle();
    }
    assert!((1..=3).contains(&(sent(&pair) - before - 2)), "{}", sent(&pair) - before - 2);
}

#[test]
fn who_has_small_segments_hears_after_four_of_them() {
    let mut pair = Pair::new();
    pair.guest = Guest::new(1500);
    let (handle, _id) = pair.open();
    let before = pair.interface.statistics().frames_sent;
    for piece in 0..40 {
        pair.guest.send(handle, &noise(1460, piece));
        pair.settle();
    }
    let heard = pair.interface.statistics().frames_sent - before;
    assert!((8..=20).contains(&heard), "{heard} acknowledgements of 40 segments");
}

#[test]
fn the_outgoing_queue_is_bounded_and_loses_nothing() {
    let mut pair = Pair::new();
    let opened: Vec<_> = (0..4).map(|_| pair.open()).collect();
    let bytes = noise(1 << 20, 5);
    for (_, id) in &opened {
        assert_eq!(pair.interface.write(*id, &bytes), Ok(Some(bytes.len())));
    }
    let ping = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &echo_request());
    for _ in 0..100 {
        pair.inject(&ping);
    }
    assert!(pair.outgoing.is_full() && pair.interface.has_backlog());
    for _ in 0..100_000 {
        pair.inject(&ping);
    }
    assert!(pair.outgoing.unsent().len() < 1 << 20);
    assert!(pair.interface.statistics().dropped.of(DropReason::NoRoom) > 0);
    let frames = pair.take_output();
    pair.guest.cable.to_guest.extend(frames);
    let mut received = vec![Vec::new(); 4];
    while received.iter().any(|received| received.len() < bytes.len()) {
        pair.settle();
        for ((handle, _), received) in opened.iter().zip(&mut received) {
            pair.guest.receive(*handle, received);
        }
    }
    assert!(received.iter().all(|received| *received == bytes));
}

#[test]
fn a_reset_is_an_error_after_the_bytes_before_it() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    pair.guest.send(handle, b"last words");
    pair.settle();
    pair.guest.tcp(handle).abort();
    pair.settle();
    assert!(pair.interface.is_readable(id) && pair.interface.is_writable(id));
    assert_eq!(pair.read(id), Ok(Some(b"last words".to_vec())));
    assert_eq!(pair.read(id), Err(StreamError::Reset));
    assert_eq!(pair.interface.write(id, b"x"), Err(StreamError::Reset));
    assert_eq!(pair.interface.statistics().resets, 1);
    pair.interface.release(id, pair.now);
    assert!(pair.interface.is_idle());
}

#[test]
fn both_directions_end_on_their_own() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    pair.guest.send(handle, b"question");
    pair.guest.tcp(handle).close();
    pair.settle();
    assert_eq!(pair.read(id), Ok(Some(b"question".to_vec())));
    assert_eq!(pair.read(id), Ok(Some(Vec::new())));
    pair.interface.write(id, b"answer").unwrap();
    pair.interface.shut_down(id);
    assert_eq!(pair.interface.write(id, b"more"), Err(StreamError::ShutDown));
    pair.settle();
    let mut answer = Vec::new();
    pair.guest.receive(handle, &mut answer);
    assert_eq!(answer, b"answer");
    assert!(pair.guest.at_end(handle));

    let (handle, id) = pair.open();
    pair.interface.shut_down(id);
    pair.settle();
    assert_eq!(pair.guest.state(handle), State::CloseWait);
    pair.guest.send(handle, b"upload");
    pair.guest.tcp(handle).close();
    // Longer than TIME-WAIT. Unread data stays.
    pair.pass(MINUTE);
    assert_eq!(pair.read(id), Ok(Some(b"upload".to_vec())));
    assert_eq!(pair.read(id), Ok(Some(Vec::new())));
}

/// smoltcp takes the window of its own SYN-ACK for a scaled one. With most buffer sizes, this
/// segment would be written beyond the end of the buffer.
#[test]
fn bytes_beyond_the_window_are_not_taken() {
    let mut pair = Pair::new();
    pair.inject(&Segment::syn(9, 0).window(1000).frame());
    let answer = pair.take_output().remove(0);
    let service = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
    pair.inject(&Segment::ack(9, 1, service).window(1000).frame());
    let id = pair.interface.accept().unwrap();
    for offset in [4 << 20, 5 << 20, (8 << 20) - 200, (4 << 20) - 100, 3 << 20] {
        pair.inject(&Segment::ack(9, 1 + offset, service).window(1000).payload(&[7; 1000]).frame());
    }
    pair.inject(
        &Segment::new(9, 1, service, Flags::PSH | Flags::ACK)
            .window(1000)
            .payload(b"in order")
            .frame(),
    );
    assert_eq!(pair.read(id), Ok(Some(b"in order".to_vec())));
    assert!(pair.serves());
}
