//! The card's core and a guest, joined by a cable of queues, in simulated time.

use std::time::Duration;

use metaservice_nic::{
    Config, DropReason, Limits, Mtu, SERVICE_ADDRESS, StreamError,
    frame::Outgoing,
    interface::{ConnectionId, Interface},
};
use metaservice_testing::network::{ADDRESS, Flags, Guest, Segment, ipv4_frame};
use metaservice_testing::noise;
use smoltcp::{iface::SocketHandle, socket::tcp::State};

struct Pair {
    interface: Interface,
    outgoing: Outgoing,
    guest: Guest,
    now: Duration,
}

impl Pair {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let config = Config { limits, ..Config::default() };
        Self {
            interface: Interface::new(&config, 7),
            outgoing: Outgoing::new(),
            guest: Guest::new(Mtu::JUMBO.get()),
            now: Duration::ZERO,
        }
    }

    /// Gives the service one frame.
    fn inject(&mut self, frame: &[u8]) {
        self.interface.receive(frame, self.now, &mut self.outgoing);
        self.interface.poll(self.now, &mut self.outgoing);
    }

    /// Everything the service has to say, away from the guest.
    fn take_output(&mut self) -> Vec<Vec<u8>> {
        let frames = self.outgoing.frames_since(0).map(<[u8]>::to_vec).collect();
        self.outgoing.sent(self.outgoing.unsent().len());
        frames
    }

    /// Moves frames until there are none, without letting time pass.
    fn settle(&mut self) {
        loop {
            self.guest.poll(self.now);
            let silent = self.guest.cable.to_service.is_empty();
            for frame in self.guest.cable.to_service.split_off(0) {
                self.interface.receive(&frame, self.now, &mut self.outgoing);
            }
            self.interface.poll(self.now, &mut self.outgoing);
            let frames = self.take_output();
            if silent && frames.is_empty() {
                return;
            }
            self.guest.cable.to_guest.extend(frames);
        }
    }

    /// Lets time pass, every timer on its way included.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while self.now < end {
            let ours = self.interface.deadline();
            let theirs = self.guest.delay(self.now).map(|delay| self.now + delay);
            let next = [ours, theirs].into_iter().flatten().min().unwrap_or(end).min(end);
            self.now = next.max(self.now + Duration::from_millis(1));
            self.settle();
        }
    }

    /// Lets time pass for the service only, while its frames pile up in front of the guest.
    fn freeze(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self.interface.deadline().unwrap_or(end).min(end);
            self.now = next.max(self.now + Duration::from_millis(1));
            self.interface.poll(self.now, &mut self.outgoing);
            let frames = self.take_output();
            self.guest.cable.to_guest.extend(frames);
        }
    }

    fn open(&mut self) -> (SocketHandle, ConnectionId) {
        let handle = self.guest.connect();
        self.settle();
        (handle, self.interface.accept().expect("a connection"))
    }

    fn read(&mut self, id: ConnectionId) -> Result<Option<Vec<u8>>, StreamError> {
        let mut bytes = Vec::new();
        let result = self.interface.read(id, |slice| {
            bytes.extend_from_slice(slice);
            slice.len()
        });
        result.map(|count| count.map(|_| bytes))
    }

    /// Whether a new connection carries bytes both ways.
    fn serves(&mut self) -> bool {
        let (handle, id) = self.open();
        self.guest.send(handle, b"ping");
        self.settle();
        let asked = self.read(id);
        self.interface.write(id, b"pong").unwrap();
        self.interface.release(id, self.now);
        self.guest.tcp(handle).close();
        self.settle();
        let mut answer = Vec::new();
        self.guest.receive(handle, &mut answer);
        asked == Ok(Some(b"ping".to_vec())) && answer == b"pong"
    }
}

const MINUTE: Duration = Duration::from_secs(60);

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
    let mut pair = Pair::with(Limits { connections: 3, ..Limits::default() });
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
fn other_ports_are_refused_and_reset_names_nobody() {
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

/// The memory of this process, in bytes.
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
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
    assert!(taken < 8 << 20, "{taken} bytes for handshakes that nobody completes");
    assert!(pair.serves());
}

/// The service's side of the connection from a port of a guest by hand.
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
        let Some(ours) = first(&pair.take_output(), port) else { continue };
        for piece in 0..20 {
            let at = 78 + piece * 60_000;
            let bytes = vec![7; 60_000];
            pair.inject(&Segment::ack(port, at, ours.wrapping_add(1)).payload(&bytes).frame());
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
    let mut pair = Pair::with(Limits { buffers: 170_000, ..Limits::default() });
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

/// A guest asks for its next action on one connection for as long as the job lives.
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
        let ours = first(&pair.take_output(), 9).unwrap();
        // The same again, and the same answer.
        pair.inject(&Segment::syn(9, 77).frame());
        assert_eq!(first(&pair.take_output(), 9), Some(ours));
        // What does not complete it leaves it as it is.
        for (sequence, acknowledged) in [(78, ours), (79, ours.wrapping_add(1))] {
            pair.inject(&Segment::ack(9, sequence, acknowledged).frame());
            assert_eq!(pair.interface.accept(), None);
        }
        pair.freeze(Duration::from_secs(seconds));
        pair.guest.cable.to_guest.clear();
        pair.inject(&Segment::ack(9, 78, ours.wrapping_add(1)).frame());
        assert_eq!(pair.interface.accept().is_some(), established, "{seconds} s");
    }
}

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
    // The guest goes on sending, and never closes: that is listened to for a while.
    pair.guest.send(handle, b"more");
    pair.pass(Duration::from_secs(29));
    assert_eq!(pair.guest.state(handle), State::CloseWait);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.guest.state(handle), State::Closed);
    assert!(pair.interface.is_idle());
}

#[test]
fn an_upload_that_nobody_reads_does_not_block_the_answer() {
    let mut pair = Pair::new();
    let (handle, id) = pair.open();
    let (upload, answer) = (vec![1; 8 << 20], noise(1_000_000, 6));
    pair.interface.write(id, &answer).unwrap();
    pair.interface.release(id, pair.now);
    // The guest reads nothing before it has sent everything.
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
fn a_slow_reader_holds_up_nobody_else() {
    let mut pair = Pair::new();
    let (slow, slow_id) = pair.open();
    let bytes = noise(10 << 20, 4);
    let mut sent = 0;
    loop {
        let count = pair.guest.send(slow, &bytes[sent..]);
        sent += count;
        // Its buffer is no larger than what may wait for an acknowledgement.
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
    let ping = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &pattern_ping());
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

/// An echo request with 1,000 bytes, whose checksum is right.
fn pattern_ping() -> Vec<u8> {
    let mut ping = vec![8, 0, 0, 0, 0, 1, 0, 1];
    ping.resize(1008, 0);
    let sum = 0x0800u16 + 1 + 1;
    ping[2..4].copy_from_slice(&(!sum).to_be_bytes());
    ping
}

#[test]
fn echo_is_answered_and_other_services_are_unreachable() {
    let mut pair = Pair::new();
    pair.inject(&ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &pattern_ping()));
    let reply = pair.take_output().remove(0);
    assert_eq!((reply.len(), reply[34]), (14 + 20 + 1008, 0));
    let dns = [0x30, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    pair.inject(&ipv4_frame(ADDRESS, SERVICE_ADDRESS, 17, &dns));
    let reply = pair.take_output().remove(0);
    assert_eq!(reply[34..36], [3, 3], "port unreachable");
    pair.inject(&ipv4_frame(ADDRESS, [169, 254, 9, 9].into(), 1, &pattern_ping()));
    let mut broken = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &pattern_ping());
    broken[24] ^= 1;
    pair.inject(&broken);
    let mut fragment = ipv4_frame(ADDRESS, SERVICE_ADDRESS, 1, &pattern_ping());
    fragment[20] = 0x20;
    pair.inject(&fragment);
    pair.inject(&ipv4_frame([255; 4].into(), SERVICE_ADDRESS, 1, &pattern_ping()));
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
    // TIME-WAIT, and longer than it lasts: what was not read stays.
    pair.pass(MINUTE);
    assert_eq!(pair.read(id), Ok(Some(b"upload".to_vec())));
    assert_eq!(pair.read(id), Ok(Some(Vec::new())));
}

#[test]
fn the_same_ports_can_be_used_again_at_once() {
    let mut pair = Pair::new();
    for round in 0..50 {
        let handle = pair.guest.connect_from(50_000, 80, 4096);
        pair.settle();
        let id = pair.interface.accept().expect("a connection");
        // The service closes first, which is the side that TIME-WAIT is at.
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

/// smoltcp reads the window of its own SYN-ACK as a scaled one. With most buffer sizes this
/// segment would be written behind the end of the buffer.
#[test]
fn bytes_beyond_the_window_are_not_taken() {
    let mut pair = Pair::new();
    pair.inject(&Segment::syn(9, 0).window(1000).frame());
    let answer = pair.take_output().remove(0);
    let ours = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
    pair.inject(&Segment::ack(9, 1, ours).window(1000).frame());
    let id = pair.interface.accept().unwrap();
    for offset in [4 << 20, 5 << 20, (8 << 20) - 200, (4 << 20) - 100, 3 << 20] {
        pair.inject(&Segment::ack(9, 1 + offset, ours).window(1000).payload(&[7; 1000]).frame());
    }
    pair.inject(
        &Segment::new(9, 1, ours, Flags::PSH | Flags::ACK)
            .window(1000)
            .payload(b"in order")
            .frame(),
    );
    assert_eq!(pair.read(id), Ok(Some(b"in order".to_vec())));
    assert!(pair.serves());
}

#[test]
fn nobody_listens_any_more() {
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
    let ours = u32::from_be_bytes(answer[38..42].try_into().unwrap()) + 1;
    pair.inject(&Segment::ack(9, 2, ours).window(1000).frame());
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
